"""Going on from an earlier model: all of it but the encoder, which comes from verify, so that it stays attested.

The source is what train wrote, or a public RAM++ checkpoint. Its tag embeddings are left: those of the new run are from
embed, for a tag list of its own. The head does not know the tags.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ramflow.errors import UserError
from ramflow.model.ram_plus import RamPlus
from ramflow.model.saved import FOLDER
from ramflow.weights.families import RAM_PLUS, RAMFLOW_MODEL
from ramflow.weights.formats import WeightsFile, read_weights
from ramflow.weights.ledger import SHOWN
from ramflow.weights.upstream import EMBEDDINGS, HEADS, ramflow_name

ENCODER = "encoder."


def load_rest(model: RamPlus, source: Path) -> dict[str, Any]:
    """Take every parameter outside the encoder from an earlier model, each once, to the bit; the encoder stays.

    Args:
        model: where they go, on any device.
        source: output of train, its ``model/`` or ``model.safetensors``, or a public RAM++ checkpoint.

    Returns:
        Provenance: ``file``, ``bytes``, ``sha256`` and ``format`` of what was read, ``tensors`` taken, how many of
        them were ``converted`` to float32, and ``other_encoder``: how many tensors of the model's encoder are not those
        that the file has beside them, tables of another window aside.

    Raises:
        UserError: no such file; not one of these; or a parameter is missing, unknown, there twice, of another shape,
            not of floating point or not finite: names the first of each. The model is then as it was.
    """
    file = read_weights(_file_of(source))
    if file.family not in (RAMFLOW_MODEL.name, RAM_PLUS.name):
        raise UserError(
            f"{file.path} is {file.format}, which has no RAM++ head to go on with: give the output of train or a RAM++ "
            "checkpoint (weights of an encoder alone go to verify)"
        )
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ENCODER)}
    keys = _match(file, wanted)
    _check_heads(model, file)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(file.view(keys[name]))
    differing = [
        n for n, tensor in wanted.items() if not torch.equal(tensor.cpu(), file.view(keys[n]).to(tensor.dtype))
    ]
    assert not differing, differing
    converted = sum(file.dtype(keys[name]) != tensor.dtype for name, tensor in wanted.items())
    other = _other_encoder(model, file)
    return {**file.source, "tensors": len(wanted), "converted": converted, "other_encoder": other}


def _other_encoder(model: RamPlus, file: WeightsFile) -> int:
    """Parameters of the encoder that differ from the file's of the same shape, or that the file has not."""
    keys = {place.key: key for key in file.keys if (place := file.place(key))}
    other = 0
    for name, tensor in model.encoder.swin.named_parameters():
        key = keys.get(name)
        if key and file.shape(key) != list(tensor.shape):
            continue
        other += key is None or not torch.equal(tensor.detach().cpu(), file.view(key).to(tensor.dtype))
    return other


def _file_of(source: Path) -> Path:
    for folder in (source / FOLDER, source):
        if (path := folder / "model.safetensors").is_file():
            return path
    if source.is_dir():
        raise UserError(
            f"{source} holds no {FOLDER}/model.safetensors: give the output of train, or a RAM++ checkpoint"
        )
    return source


def _match(file: WeightsFile, wanted: dict[str, Tensor]) -> dict[str, str]:
    """The file's key of every parameter wanted."""
    ours = file.family == RAMFLOW_MODEL.name
    names = {key: key if ours else ramflow_name(key) for key in file.keys if file.place(key) is None}
    names.pop(EMBEDDINGS, None)
    counted = Counter(names.values())
    keys = {name: key for key, name in names.items() if name in wanted}
    fitting = [name for name in keys if file.shape(keys[name]) == list(wanted[name].shape)]
    floating = [name for name in fitting if file.dtype(keys[name]).is_floating_point]
    groups = (
        ("missing", [name for name in wanted if name not in keys]),
        ("unknown", [key for key, name in names.items() if name not in wanted]),
        ("there twice", [name for name in keys if counted[name] > 1]),
        ("of another shape", [f"{keys[name]} is {file.shape(keys[name])}, not {list(wanted[name].shape)}"
                              for name in keys if name not in fitting]),
        ("not floating point", [keys[name] for name in fitting if name not in floating]),
        ("not finite", [keys[name] for name in floating if not bool(file.view(keys[name]).isfinite().all())]),
    )  # fmt: skip
    if any(found for _, found in groups):
        parts = [f"{len(found)} {what}: {', '.join(found[:SHOWN])}" for what, found in groups if found]
        raise UserError(
            f"{file.path} is not a model to go on from here: {'; '.join(parts)}; give one of the same train.head and "
            "width of embeddings, or set train.head to its own"
        )
    return keys


def _check_heads(model: RamPlus, file: WeightsFile) -> None:
    """The number of attention heads, which no tensor tells."""
    layer: Any = model.head.layers[0]
    heads: int = layer.attention.heads
    own, config = HEADS, file.path.with_name("config.json")
    if file.family == RAMFLOW_MODEL.name and config.is_file():
        own = json.loads(config.read_text(encoding="utf-8"))["head"]["heads"]
    elif file.family == RAMFLOW_MODEL.name:
        return
    if own != heads:
        raise UserError(f"{file.path} has {own} attention heads, the model {heads}: set train.head.heads to {own}")
