"""What the command line and the launcher of Kubeflow Pipelines tell each other; the launcher runs stages as containers.

The launcher passes one JSON object, the executor input (kfp pipeline spec, ``ExecutorInput``). It says where the
outputs are to be named: a container component's artifacts exist downstream only if the container writes that file.
It also lists the input artifacts, of which an argument of the container can name one, but not a list.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ramflow.errors import UserError

MOUNTS = {"gs": "/gcs/", "s3": "/s3/", "minio": "/minio/"}
"""Where the launcher puts the artifacts of a store."""


def name_outputs(executor_input: str) -> None:
    """Write the executor output file that ``executor_input`` (JSON) asks for, with the artifacts it lists."""
    outputs = json.loads(executor_input)["outputs"]
    artifacts = {name: {"artifacts": value["artifacts"]} for name, value in outputs.get("artifacts", {}).items()}
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")


def input_paths(executor_input: str, name: str) -> list[str] | None:
    """Local paths of the artifacts that are the input ``name``, or None: ``executor_input`` (JSON) has no such input.

    Raises:
        UserError: the input is an empty list, or an artifact is where the launcher puts none.
    """
    artifacts = json.loads(executor_input).get("inputs", {}).get("artifacts", {})
    if name not in artifacts:
        return None
    listed = artifacts[name].get("artifacts", [])
    if not listed:
        raise UserError(f"--executor-input: the list {name} is empty: see that the tasks before this one made it")
    return [_local_path(artifact) for artifact in listed]


def _local_path(artifact: dict[str, Any]) -> str:
    """Where the launcher has put an artifact."""
    uri: str = artifact["uri"]
    if custom := artifact.get("customPath"):
        return str(custom)
    remote = re.fullmatch(r"(\w+)://(.*)", uri)
    if not remote:
        return uri
    if remote[1] not in MOUNTS:
        raise UserError(f"--executor-input: {uri} is in no store that the launcher brings here ({', '.join(MOUNTS)})")
    return MOUNTS[remote[1]] + remote[2]
