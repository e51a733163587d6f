"""audit of a range of shards as a pipeline component, in the image without torch."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["data"]


@dsl.container_component
def audit_part(params: str, data: str, shard_range: str, out: dsl.Output[dsl.Artifact]) -> dsl.ContainerSpec:
    """Read every record and decode every image of a range of shards.

    Args:
        params: JSON text of the section, {"audit": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        shard_range: FIRST:END, END exclusive, as shards makes them.
        out: what was found, and what the conclusion over all parts needs; nothing is concluded yet.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "audit"],
        args=[
            "--params", params,
            "--data", data,
            "--shard-range", shard_range,
            "--out", out.path,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
