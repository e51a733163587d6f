"""Diagnoses of a checkpoint: finite, tag embeddings, window, re-weighting scale (F03, F04, F06, F20, F26)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ramflow.doctor.case import Case
from ramflow.doctor.checkpoint_file import LABEL_EMBED, Checkpoint
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.weights_file import WHOLE_MODELS

MAX_SCALE = math.log(100)
WINDOWS = {224: 7, 384: 12}
"""Window of the public configurations, by image size."""
ROWS_AT_A_TIME = 1 << 16


def diagnose_checkpoint(case: Case) -> Answer:
    """Look at every tensor of the checkpoint once."""
    answer = Answer()
    if case.checkpoint is None:
        return answer
    checkpoint = case.checkpoint
    answer.seen.append(("checkpoint", _describe(checkpoint)))
    names = len(case.tags.names) if case.tags else None
    found = [_not_finite(checkpoint), _label_embed(checkpoint, names), _window(checkpoint), _scale(checkpoint)]
    answer.findings += [finding for finding in found if finding]
    if "image_size" not in checkpoint.config and checkpoint.family != "ramflow model":
        answer.untold.append(Untold("does the encoder's window fit the image size", "a checkpoint with its 'config'"))
    return answer


def _describe(checkpoint: Checkpoint) -> str:
    parts = [f"{checkpoint.path.name}: {WHOLE_MODELS[checkpoint.family]}, {len(checkpoint.file.keys)} tensors"]
    if checkpoint.label_rows:
        parts.append(f"{checkpoint.label_rows:,} rows of tag embeddings, {checkpoint.tags:,} tags")
    if checkpoint.epoch is not None:
        parts.append(f"saved after epoch {checkpoint.epoch}")
    if checkpoint.updates is not None:
        parts.append(f"{checkpoint.updates:,} steps of the optimiser")
    named = {key: checkpoint.config[key] for key in ("batch_size", "image_size", "vit") if key in checkpoint.config}
    return ", ".join(parts + [f"{key} {value}" for key, value in named.items()])


def _not_finite(checkpoint: Checkpoint) -> Finding | None:
    bad = [key for key in checkpoint.file.keys if not _finite(checkpoint.file.read(key))]
    if not bad:
        return None
    return Finding(
        "checkpoint.not_finite", "cause", "certain", "The checkpoint holds NaN or infinity",
        [f"{len(bad)} of {len(checkpoint.file.keys)} tensors, the first: {', '.join(bad[:3])}"],
        "Such a model scores every image NaN. The public code neither checks a loss nor what it saves.",
        "Go back to the last checkpoint that is finite; find in the log where the losses left off being numbers.",
        ("losses.stall", "losses.swings", "losses.spikes"),
    )  # fmt: skip


def _finite(tensor: Tensor) -> bool:
    parts = tensor.reshape(-1).split(1 << 24)
    return not tensor.is_floating_point() or all(bool(part.isfinite().all()) for part in parts)


def _rows(label_embed: Tensor) -> Iterator[Tensor]:
    yield from label_embed.split(ROWS_AT_A_TIME)


def _label_embed(checkpoint: Checkpoint, names: int | None) -> Finding | None:
    """Look at the rows of the tag embeddings; ``names`` is the length of the tag list, where it was given."""
    label_embed = checkpoint.read(LABEL_EMBED)
    if label_embed is None or label_embed.ndim != 2:
        return None
    zero = sum(int((part == 0).all(dim=1).sum()) for part in _rows(label_embed))
    alike = sum(int((part == label_embed[0]).all(dim=1).sum()) for part in _rows(label_embed))
    rows = len(label_embed)
    if zero or alike == rows > 1:
        return _empty(f"{zero:,} of {rows:,} rows are zero" if zero else f"all {rows:,} rows are the same")
    if checkpoint.family != "ram++":
        return None
    per_tag = checkpoint.per_tag
    if rows % per_tag or rows == names:
        return _averaged([f"label_embed has {rows:,} rows, which is no multiple of {per_tag}: one row a "
                          "tag, or uneven descriptions"])  # fmt: skip
    tags = label_embed.view(-1, per_tag, label_embed.shape[1])
    same = int((tags == tags[:, :1]).flatten(1).all(dim=1).sum())
    if same > len(tags) // 2:
        return _averaged([f"{same:,} of {len(tags):,} tags have {per_tag} times the same row"])
    return None


def _empty(evidence: str) -> Finding:
    return Finding(
        "embeddings.empty", "cause", "certain", "The checkpoint's tag embeddings are empty", [evidence],
        "A query of zeros asks nothing: all such tags get one and the same score. A model built for scoring starts "
        "with zeros, and a tolerant load leaves them.",
        "Load the checkpoint with its own label_embed, or put the embedding file's rows there before training.",
        ("losses.stall", "distillation.floor"),
    )  # fmt: skip


def _averaged(evidence: list[str]) -> Finding:
    return Finding(
        "embeddings.averaged", "cause", "certain", "A tag's descriptions are not there one by one: re-weighting is off",
        evidence,
        "RAM++ weighs 51 descriptions of a tag by each image. With one row there is nothing to weigh, and the run "
        "is RAM with a mean description. The public helper averaged them until pull request 187 (2024-06-12), and "
        "runs without an error.",
        "Build the embeddings again with 51 rows a tag: `ramflow embed` keeps them apart, with a mask where some "
        "are missing.",
    )  # fmt: skip


def _window(checkpoint: Checkpoint) -> Finding | None:
    size = checkpoint.config.get("image_size")
    tables = [key for key in checkpoint.encoder if key.endswith("relative_position_bias_table")]
    if not isinstance(size, int) or size not in WINDOWS or not tables:
        return None
    window = (math.isqrt(len(checkpoint.encoder[tables[0]])) + 1) // 2
    if window == WINDOWS[size]:
        return None
    return Finding(
        "encoder.window", "cause", "certain", f"The encoder has windows of {window} at {size} pixels",
        [f"{tables[0]} has {(2 * window - 1) ** 2} rows; the public configuration for {size} pixels has window "
         f"{WINDOWS[size]}"],
        "Position tables for another window were interpolated or never fitted, and the file's were not what this "
        "size needs. Before commit 9dbf070 (2024-01-28) the Swin-L configuration for 224 pixels named the 384-pixel "
        "file.",
        f"Start from the weights made for {size} pixels; ramflow interpolates only when asked, and records it.",
        ("losses.stall",),
    )  # fmt: skip


def _scale(checkpoint: Checkpoint) -> Finding | None:
    scale = checkpoint.read("reweight_scale")
    if scale is None or not torch.isfinite(scale).all() or float(scale.max()) <= MAX_SCALE:
        return None
    value = float(scale.max())
    return Finding(
        "scale.runaway", "cause", "certain", "The re-weighting scale has run away",
        [f"reweight_scale is {value:.2f}, above ln 100 = {MAX_SCALE:.2f}: similarities are multiplied by "
         f"{math.exp(min(value, 700)):.3g}"],
        "The softmax over a tag's descriptions picks one of them for ever, and its gradient is gone.",
        "Clamp the scale at ln 100, as ramflow does.",
        ("losses.swings",),
    )  # fmt: skip
