"""train as a pipeline component; with an override it is the from-scratch run too."""

import json
from pathlib import Path
from typing import Optional

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["train"]


@dsl.container_component
def train(
    params: str, data: str, audit: dsl.Input[dsl.Artifact], embed: dsl.Input[dsl.Artifact],
    verify: dsl.Input[dsl.Artifact], clip: str, out: dsl.Output[dsl.Model],
    override: Optional[str] = None,  # noqa: UP045 (kfp does not read `str | None`)
) -> dsl.ContainerSpec:
    """Train RAM++ from the audited data, embeddings and verified weights.

    Args:
        params: JSON text of the section, {"train": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        audit: output of audit.
        embed: output of embed.
        verify: output of verify.
        clip: CLIP model in transformers layout, a path or s3:// address.
        out: the model, its checkpoints, metrics and events, verdict.
        override: one more parameter, as --set takes it: train.from_scratch=true makes the from-scratch run.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "train"],
        args=[
            "--params", params,
            dsl.IfPresentPlaceholder("override", then=["--set", override]),
            "--data", data,
            "--audit", audit.path,
            "--embed", embed.path,
            "--verify", verify.path,
            "--clip", clip,
            "--out", out.path, "--enforce",
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
