"""report as a pipeline component, in the image without torch."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["data"]


@dsl.container_component
def report(
    params: str, data: str, audit: dsl.Input[dsl.Artifact], embed: dsl.Input[dsl.Artifact],
    verify: dsl.Input[dsl.Artifact], train: dsl.Input[dsl.Model], scratch: dsl.Input[dsl.Model],
    evaluate: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.HTML]
) -> dsl.ContainerSpec:
    """One self-contained page of all that the stages found.

    Args:
        params: JSON text of the section, {"report": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        audit: output of audit.
        embed: output of embed.
        verify: output of verify.
        train: output of train.
        scratch: output of the from-scratch run of train.
        evaluate: output of evaluate.
        out: the page.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "report"],
        args=[
            "--params", params,
            "--data", data,
            "--audit", audit.path,
            "--embed", embed.path,
            "--verify", verify.path,
            "--train", train.path,
            "--scratch", scratch.path,
            "--evaluate", evaluate.path,
            "--out", out.path,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
