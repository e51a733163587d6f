"""verify as a pipeline component."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["train"]


@dsl.container_component
def verify(
    params: str, weights: str, data: str, embed: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]
) -> dsl.ContainerSpec:
    """Load pretrained encoder weights exactly, and prove it.

    Args:
        params: JSON text of the section, {"verify": {...}}; `ramflow settings` lists the keys.
        weights: the encoder's weights file, a path or s3:// address.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        embed: output of embed.
        out: the encoder as ramflow loads it, its attestation, verdict.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "verify"],
        args=[
            "--params", params,
            "--weights", weights,
            "--data", data,
            "--embed", embed.path,
            "--out", out.path, "--enforce",
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
