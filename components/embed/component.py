"""embed as a pipeline component."""

import json
from pathlib import Path

from kfp import dsl

IMAGE = json.loads((Path(__file__).parents[1] / "images.json").read_text(encoding="utf-8"))["train"]


@dsl.container_component
def embed(
    params: str, data: str, audit: dsl.Input[dsl.Artifact], descriptions: str, clip: str,
    out: dsl.Output[dsl.Artifact]
) -> dsl.ContainerSpec:
    """Tag descriptions and captions through the CLIP text encoder.

    Args:
        params: JSON text of the section, {"embed": {...}}; `ramflow settings` lists the keys.
        data: the packed dataset, a path or s3:// address; never an artifact, so that no pod downloads it whole.
        audit: output of audit.
        descriptions: texts of every tag, JSON or tag<TAB>text lines, a path or s3:// address.
        clip: CLIP in transformers layout, a path, s3:// address, or OWNER/NAME[@REVISION] of the Hugging Face hub.
        out: tag and caption vectors, findings, verdict.
    """
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["ramflow", "embed"],
        args=[
            "--params", params,
            "--data", data,
            "--audit", audit.path,
            "--descriptions", descriptions,
            "--clip", clip,
            "--out", out.path, "--enforce",
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip
