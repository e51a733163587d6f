"""audit as a pipeline component, in the image without torch."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["data"]


@dsl.container_component
def audit(params: str, data: str, out: dsl.Output[dsl.Artifact]) -> dsl.ContainerSpec:
    """Read every record, decode every image, count every tag.

    Args:
        params: JSON text of the section, {"audit": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
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
