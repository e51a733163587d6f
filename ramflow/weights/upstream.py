"""The public RAM++ checkpoint and ramflow's model, either way, no key lost.

The public file is ``{"model": state dict}`` by ``torch.save``; a safetensors file with the same names is read and
written as well. Beside the parameters it holds the tag embeddings (``label_embed``, tag after tag, the descriptions of
a tag side by side: every tag has as many) and what Swin computes for itself (position indices, masks of shifted
windows).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ramflow import storage
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from ramflow.weights.families import ENCODER_OF_RAMFLOW, ENCODER_OF_UPSTREAM, MICROSOFT
from ramflow.weights.formats import WeightsFile, read_weights
from ramflow.weights.ledger import BUFFERS, SHOWN, match_keys

EMBEDDINGS = "label_embed"
HEADS = 4
"""Attention heads of the public head; no tensor tells their number."""

_MODULES = (
    ("reweight_scale", "reweighting.scale"),
    ("image_proj.", "image_projection."),
    ("wordvec_proj.", "head.project."),
    ("fc.", "head.logit."),
)
_LAYERS = "tagging_head.encoder.layer.", "head.layers."
_IN_LAYER = (
    ("crossattention.self.", "attention."),
    ("crossattention.output.dense.", "attention.output."),
    ("crossattention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "expand."),
    ("output.dense.", "contract."),
    ("output.LayerNorm.", "output_norm."),
)
_OLD_HEAD = "vision_multi."
"""The tagging head's name in early public checkpoints."""


def ramflow_name(key: str) -> str | None:
    """ramflow's name of a parameter of the public model; nothing for what is no parameter of it."""
    if key.startswith(ENCODER_OF_UPSTREAM):
        place = MICROSOFT.place(key.removeprefix(ENCODER_OF_UPSTREAM))
        return None if place is None or _is_buffer(key) else ENCODER_OF_RAMFLOW + place.key
    if key.startswith(_OLD_HEAD):
        key = "tagging_head." + key.removeprefix(_OLD_HEAD)
    return _renamed(key, 0, 1)


def upstream_name(key: str) -> str:
    """The public model's name of a key of ramflow's."""
    if key.startswith(ENCODER_OF_RAMFLOW):
        return ENCODER_OF_UPSTREAM + microsoft_name(key.removeprefix(ENCODER_OF_RAMFLOW))
    name = _renamed(key, 1, 0)
    assert name, key
    return name


def microsoft_name(key: str) -> str:
    """Microsoft's name of a tensor of timm's Swin: a stage's downsample layer at the end of the stage before it."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", key)


def _is_buffer(key: str) -> bool:
    """True for what Swin computes for itself."""
    return key.startswith(ENCODER_OF_UPSTREAM) and key.endswith(BUFFERS)


def _renamed(key: str, old: int, new: int) -> str | None:
    for names in _MODULES:
        if key.startswith(names[old]):
            return names[new] + key.removeprefix(names[old])
    if key.startswith(_LAYERS[old]):
        number, _, rest = key.removeprefix(_LAYERS[old]).partition(".")
        for names in sorted(_IN_LAYER, key=lambda names: -len(names[old])):
            if rest.startswith(names[old]):
                return f"{_LAYERS[new]}{number}.{names[new]}{rest.removeprefix(names[old])}"
    return None


def read_ram_plus(path: Path, encoder: Swin, tags: int, *, heads: int = HEADS) -> RamPlus:
    """A model from a public RAM++ checkpoint, in evaluation mode: every parameter from the file, none left over.

    Args:
        path: ``checkpoint_XX.pth``, the public release, or what ``ramflow export`` wrote.
        encoder: what the encoder is, newly created; the file must fit it exactly.
        tags: length of the tag list that it was trained with.
        heads: attention heads of the tagging head.

    Raises:
        UserError: it is no RAM++ checkpoint, or not one of this encoder and tag list; names the first differing keys.
    """
    file = read_weights(path)
    if file.family != "ram++":
        raise UserError(f"{path} is {file.format}, not a RAM++ checkpoint: give the file that RAM++ training wrote")
    match_keys(file, encoder.swin, type(encoder.swin).__name__)
    embeddings = _embeddings(file, tags)
    model = RamPlus(encoder, _head(file, heads), embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))
    names = {name: key for key in file.keys if (name := ramflow_name(key))}
    state = model.state_dict()
    known = {*names.values(), EMBEDDINGS}
    groups = (
        ("missing", [upstream_name(name) for name in state if name not in names]),
        ("unknown", [key for key in file.keys if key not in known and not _is_buffer(key)]
         + [key for name, key in names.items() if name not in state]),
        ("of another shape", [names[name] for name, tensor in state.items()
                              if name in names and file.shape(names[name]) != list(tensor.shape)]),
        ("not floating point", [key for name, key in names.items() if not file.dtype(key).is_floating_point]),
    )  # fmt: skip
    if any(keys for _, keys in groups):
        parts = [f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}" for what, keys in groups if keys]
        raise UserError(f"{path} is not a whole RAM++ model: {'; '.join(parts)}; give it as training wrote it")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(file.view(names[name]))
    return model.eval()


def _embeddings(file: WeightsFile, tags: int) -> Tensor:
    """Tag embeddings [tags, descriptions, width] of a checkpoint."""
    if EMBEDDINGS not in file.keys:
        raise UserError(f"{file.path} has no {EMBEDDINGS}: a RAM++ checkpoint holds its tag embeddings")
    rows, width = file.shape(EMBEDDINGS)
    if rows % tags:
        raise UserError(
            f"{file.path}: {rows} rows of {EMBEDDINGS} are not {tags} tags with as many descriptions each: give "
            "the tag list that it was trained with"
        )
    return file.read(EMBEDDINGS).float().view(tags, rows // tags, width)


def _head(file: WeightsFile, heads: int) -> HeadSettings:
    """Size of the tagging head, from the shapes of its tensors."""
    names = {name: key for key in file.keys if (name := ramflow_name(key))}
    try:
        hidden = file.shape(names["head.project.weight"])[0]
        feed_forward = file.shape(names["head.layers.0.expand.weight"])[0]
    except KeyError as error:
        raise UserError(f"{file.path} has no {upstream_name(error.args[0])}: it is not a whole RAM++ model") from None
    layers = {name.split(".")[2] for name in names if name.startswith(_LAYERS[1])}
    return HeadSettings(hidden=hidden, layers=len(layers), heads=heads, feed_forward=feed_forward)


def upstream_state(model: RamPlus, *, repeat: bool = False) -> OrderedDict[str, Tensor]:
    """The state dict that the public RAM++ has for this model, under its names, sorted.

    Args:
        model: the model.
        repeat: a tag with fewer descriptions than others has its own again, from the first, until it has as many. The
            re-weighting then weighs those more than the others of that tag.

    Raises:
        UserError: tags have different numbers of descriptions, and ``repeat`` is not given.
    """
    state = {upstream_name(key): tensor for key, tensor in model.state_dict().items()}
    state[EMBEDDINGS] = _rows(model, repeat).flatten(0, 1).float()
    state |= {ENCODER_OF_UPSTREAM + key: buffer for key, buffer in model.encoder.swin.named_buffers()}
    return OrderedDict((key, state[key].detach().cpu().contiguous()) for key in sorted(state))


def _rows(model: RamPlus, repeat: bool) -> Tensor:
    """Tag embeddings [tags, descriptions, width], as many of every tag."""
    if bool(model.mask.all()):
        return model.embeddings
    counts = model.mask.sum(dim=1).tolist()
    if not repeat:
        raise UserError(
            f"tags have {min(counts)} to {max(counts)} descriptions: the public layout holds the same number for every "
            "tag; train with as many for each to export, or give --repeat, which writes a tag's own again"
        )
    own = zip(model.embeddings, model.mask, counts, strict=True)
    return torch.stack([rows[mask][torch.arange(max(counts)) % count] for rows, mask, count in own])


def write_ram_plus(model: RamPlus, path: Path, *, repeat: bool = False) -> int:
    """Write a model as a public RAM++ checkpoint (:func:`write_state`); returns the number of tensors.

    Raises:
        UserError: tags have different numbers of descriptions, and ``repeat`` (:func:`upstream_state`) is not given.
    """
    state = upstream_state(model, repeat=repeat)
    write_state(state, path, wrap=True)
    return len(state)


def encoder_state(encoder: Swin, tensors: dict[str, Tensor], layout: str) -> OrderedDict[str, Tensor]:
    """An encoder's tensors under the names of ``layout``: ``microsoft`` (with its buffers) or ``timm``."""
    if layout == "timm":
        return OrderedDict(sorted(tensors.items()))
    renamed = {microsoft_name(key): tensor for key, tensor in tensors.items()}
    return OrderedDict(sorted({**renamed, **dict(encoder.swin.named_buffers())}.items()))


def write_state(state: OrderedDict[str, Tensor], path: Path, *, wrap: bool) -> None:
    """Write a state dict, whole or not at all; the same bytes for the same content, whatever the file's name.

    Args:
        state: contiguous tensors by name.
        path: ``.safetensors``, or any other ending for ``torch.save``.
        wrap: torch's file holds ``{"model": state}``, as checkpoints of the public codes do.
    """
    with storage.whole_file(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(dict(state), temporary)
        else:
            with temporary.open("wb") as file:
                torch.save({"model": state} if wrap else dict(state), file)
