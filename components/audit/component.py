"""audit as a pipeline component, in the image without torch."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["data"]


@dsl.container_component
def audit(
    params: str, data: str, parts: dsl.Input[list[dsl.Artifact]], out: dsl.Output[dsl.Artifact]
) -> dsl.ContainerSpec:
    """Put the parts of the audit together and say whether the set can be trained on.

    Args:
        params: JSON text of the section, {"audit": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        parts: outputs of audit_part, of all shards; no argument can name a list, the executor input does.
        out: findings, tag table with counts, quarantine, verdict.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "audit"],
        args=[
            "--params", params,
            "--data", data,
            "--out", out.path, "--enforce",
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
