"""Names a stage's outputs to the launcher of Kubeflow Pipelines, which runs stages as containers.

A container component's artifacts exist downstream only if the container writes the executor output file; the
launcher tells where in the executor input that it passes (kfp pipeline spec, ``ExecutorInput``).
"""

from __future__ import annotations

import json
from pathlib import Path


def name_outputs(executor_input: str) -> None:
    """Write the executor output file that ``executor_input`` (JSON) asks for, with the artifacts it lists."""
    outputs = json.loads(executor_input)["outputs"]
    artifacts = {name: {"artifacts": value["artifacts"]} for name, value in outputs.get("artifacts", {}).items()}
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")
