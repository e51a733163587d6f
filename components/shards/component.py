"""shards as a pipeline component: what each task of the fanned-out audit takes."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["data"]


@dsl.container_component
def shards(data: str, per_task: int, ranges: dsl.OutputPath(list)) -> dsl.ContainerSpec:
    """Cut the shards of a packed dataset into ranges, one a task.

    Args:
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        per_task: shards in a range.
        ranges: JSON list of "FIRST:END", END exclusive; together they are all shards, each once.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "shards"],
        args=["--data", data, "--per-task", per_task, "--out", ranges],
    )
