"""evaluate as a pipeline component."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["train"]


@dsl.container_component
def evaluate(
    params: str, data: str, audit: dsl.Input[dsl.Artifact], train: dsl.Input[dsl.Model],
    scratch: dsl.Input[dsl.Model], out: dsl.Output[dsl.Artifact]
) -> dsl.ContainerSpec:
    """Score the test split: mAP, precision, recall, F1, and the baselines.

    Args:
        params: JSON text of the section, {"evaluate": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        audit: output of audit.
        train: output of train.
        scratch: output of the from-scratch run of train.
        out: scores, figures a tag, evaluation.json, verdict.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "evaluate"],
        args=[
            "--params", params,
            "--data", data,
            "--audit", audit.path,
            "--train", train.path,
            "--scratch", scratch.path,
            "--out", out.path, "--enforce",
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
