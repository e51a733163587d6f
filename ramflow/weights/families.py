"""Families of key names: what a file's tensors are called, and which tensor of timm's Swin each one is.

A family is told by keys that only it has. timm has a stage's downsample layer at the start of the next stage, the
others at the end of the stage itself; Hugging Face keeps query, key and value apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ramflow.errors import UserError


@dataclass(frozen=True)
class Place:
    """The tensor of timm's Swin that a key is, or the ``part`` of it, from 0, along its first dimension."""

    key: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Family:
    """A layout of keys.

    ``place`` gives the encoder's tensor for a key, and nothing for a key that lies outside the encoder.
    """

    name: str
    place: Callable[[str], Place | None]


def _timm(key: str) -> Place | None:
    return Place(key)


def _microsoft(key: str) -> Place | None:
    if match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key):
        return Place(f"layers.{int(match[1]) + 1}.downsample.{match[2]}")
    return Place(key)


_HUGGING_FACE = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.norm": "patch_embed.norm",
    "layernorm": "norm",
    "classifier": "head",
}
_HUGGING_FACE_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_PROJECTIONS = {"query": 0, "q_proj": 0, "key": 1, "k_proj": 1, "value": 2, "v_proj": 2}


def _hugging_face(key: str) -> Place | None:
    """Names of transformers' SwinModel, up to version 4 and from 5 on."""
    body = key.removeprefix("swin.").removeprefix("encoder.")
    module, _, leaf = body.rpartition(".")
    if module in _HUGGING_FACE:
        return Place(f"{_HUGGING_FACE[module]}.{leaf}")
    if not (match := re.fullmatch(r"(layers\.\d+\.blocks\.\d+)\.(.+)", module)):
        return _microsoft(body)
    block, name = match[1], match[2]
    if leaf.startswith("relative_position_"):
        return Place(f"{block}.attn.{leaf}")
    projection = name.removeprefix("attention.").removeprefix("self.")
    if projection in _PROJECTIONS:
        return Place(f"{block}.attn.qkv.{leaf}", _PROJECTIONS[projection], 3)
    return Place(f"{block}.{_HUGGING_FACE_BLOCK.get(name, name)}.{leaf}")


def _below(prefix: str, inner: Callable[[str], Place | None]) -> Callable[[str], Place | None]:
    return lambda key: inner(key.removeprefix(prefix)) if key.startswith(prefix) else None


ENCODER_OF_UPSTREAM = "visual_encoder."
ENCODER_OF_RAMFLOW = "encoder.swin."
PATCHES = "patch_embed.proj.weight"
TABLE = "attn.relative_position_bias_table"

TIMM = Family("timm", _timm)
MICROSOFT = Family("microsoft", _microsoft)
HUGGING_FACE = Family("hugging face", _hugging_face)
RAM_PLUS = Family("ram++", _below(ENCODER_OF_UPSTREAM, _microsoft))
RAM = Family("ram", RAM_PLUS.place)
TAG2TEXT = Family("tag2text", RAM_PLUS.place)
RAMFLOW = Family("ramflow", _timm)
RAMFLOW_MODEL = Family("ramflow model", _below(ENCODER_OF_RAMFLOW, _timm))

OTHERS = (
    ("Swin v2", r"\.(attn|self|attention)\.(logit_scale|continuous_position_bias_mlp|cpb_mlp)($|\.)"),
    ("a CLIP model", r"^(visual\.|vision_model\.|text_model\.|logit_scale$)"),
    ("a vision transformer (ViT)", r"(^|\.)(cls_token|pos_embed|position_embeddings)$"),
    ("a ConvNeXt", r"(^|\.)(gamma|layer_scale_parameter|dwconv\.weight|conv_dw\.weight)$"),
    ("a ResNet", r"(^|\.)(layer1\.0\.conv1\.weight|conv1\.weight|embedder\.convolution\.weight)$"),
)
"""Kinds of models that are refused by name, and a key that only they have."""

WRAPPER = "module."
"""In front of every key of a model that was saved inside torch's data parallelism."""
SHOWN = 3


def find_family(keys: Collection[str], path: Path, *, ours: bool = False) -> Family:
    """Tell a family by its keys.

    Args:
        keys: of the file.
        path: for the message.
        ours: the file says that ramflow wrote it.

    Raises:
        UserError: it is another kind of model, or unknown: with its first keys.
    """
    if keys and all(key.startswith(WRAPPER) for key in keys):
        inner = find_family({key.removeprefix(WRAPPER): None for key in keys}, path)
        return Family(f"{inner.name}, wrapped", _below(WRAPPER, inner.place))
    names = set(keys)
    for family in (_whole_model(names), _encoder(names)):
        if family and not any(re.search(OTHERS[0][1], key) for key in keys):
            return RAMFLOW if ours and family is TIMM else family
    first = ", ".join(list(keys)[:SHOWN]) or "none"
    kind = next((kind for kind, sign in OTHERS if any(re.search(sign, key) for key in keys)), None)
    if kind:
        raise UserError(f"{path} is {kind}, not a Swin (its first keys are {first}): give the weights of a Swin")
    raise UserError(f"{path} is not a Swin in a layout that ramflow knows: its first keys are {first}")


def _whole_model(names: set[str]) -> Family | None:
    if ENCODER_OF_RAMFLOW + PATCHES in names:
        return RAMFLOW_MODEL
    if ENCODER_OF_UPSTREAM + PATCHES not in names:
        return None
    if "reweight_scale" in names:
        return RAM_PLUS
    return TAG2TEXT if {"fc.W", "label_embed.weight"} & names else RAM


def _encoder(names: set[str]) -> Family | None:
    if any(f"{prefix}embeddings.patch_embeddings.projection.weight" in names for prefix in ("", "swin.")):
        return HUGGING_FACE if any("relative_position_bias_table" in name for name in names) else None
    if not {PATCHES, f"layers.0.blocks.0.{TABLE}"} <= names:
        return None
    return MICROSOFT if any(name.startswith("layers.0.downsample.") for name in names) else TIMM
