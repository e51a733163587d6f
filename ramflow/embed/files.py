"""Files of tag embeddings: ramflow's own, the public code's ``.pth``, and those inside a RAM++ checkpoint.

The public file (``ram_plus_tag_embedding_class_4585_des_51.pth``) is one float32 tensor [tags * descriptions, width]
of unit rows; the row of a description is tag * descriptions + description. Nothing in it says how many tags there are,
of which list, or how many descriptions each tag has (F06, F07).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ramflow import storage
from ramflow.data.vectors import METADATA_KEY, TAGS_FILE, TagEmbeddings
from ramflow.errors import UserError
from ramflow.progress import say
from ramflow.weights.containers import container_of, load_torch, open_safetensors

LABEL_EMBED = "label_embed"
WRAPPERS = ("model", "state_dict")
SHOWN = 3


def read_embeddings(path: Path, tags: int) -> TagEmbeddings:
    """Read embeddings of ``tags`` tags, float32, from any of the forms.

    Files without metadata have ``tag_digest`` "" and ``encoder`` {}, and every row counts. Other precisions are
    converted, and that is said.

    Args:
        path: the folder that embed or ``ramflow embeddings import`` wrote, or its ``tags.safetensors``; the public
            code's ``.pth``; or a RAM++ checkpoint, whose ``label_embed`` is taken.
        tags: number of tags of the list that the file is for.

    Raises:
        UserError: no such file; damaged, or not embeddings; or not of so many tags.
    """
    content, source = _open(path)
    if isinstance(content, TagEmbeddings):
        found = len(content.mask)
        if found != tags:
            raise UserError(f"{path} has {found} tags, the tag list {tags}: give the list that it was made for")
        return content
    rows = _float32(content, source)
    if rows.dim() == 3 and len(rows) == tags:
        rows = rows.flatten(0, 1)
    if rows.dim() != 2 or 0 in rows.shape:
        raise UserError(f"{source} has the shape {list(rows.shape)}: [tags * descriptions, width] is expected")
    if len(rows) % tags:
        raise UserError(
            f"{source} has {len(rows)} rows, not the same number for each of {tags} tags: it is of another tag list, "
            "or a tag has a description too many or too few, which moves the rows of all that follow; make it again"
        )
    embeddings = rows.view(tags, -1, rows.shape[1])
    return TagEmbeddings(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool), "", {})


def read_layout(path: Path) -> TagEmbeddings:
    """Read a folder or file in ramflow's own layout, whatever number of tags it has.

    Raises:
        UserError: no such file, damaged, or another form.
    """
    content, _ = _open(path)
    if not isinstance(content, TagEmbeddings):
        raise UserError(f"{path} is not what embed writes: give its output folder, or `ramflow embeddings import` it")
    return content


def write_upstream(vectors: TagEmbeddings, path: Path, *, repeat: bool = False) -> None:
    """Write the public code's form: one float32 tensor [tags * descriptions, width], by ``torch.save``.

    Args:
        vectors: the embeddings.
        path: the file, which appears whole or not at all.
        repeat: a tag with fewer descriptions than others has its own rows again, from its first, until it has as many.
            The re-weighting then weighs the repeated ones more than the others of that tag.

    Raises:
        UserError: tags have unequal numbers of descriptions and ``repeat`` is not given, or a tag has none.
    """
    counts = vectors.mask.sum(dim=1)
    most = int(counts.max())
    few = (counts < most).nonzero().flatten().tolist()
    if (counts == 0).any():
        raise UserError(f"tag {int(counts.argmin())} has no row: the public form has no place for a tag without any")
    if few and not repeat:
        raise UserError(
            f"{len(few)} of {len(counts)} tags have fewer than {most} descriptions, first tag {few[0]} with "
            f"{int(counts[few[0]])}: the public form wants as many for each; --repeat writes a tag's rows again until "
            "it has as many"
        )
    rows = torch.empty(len(counts), most, vectors.embeddings.shape[2])
    for tag, count in enumerate(counts.tolist()):
        own = vectors.embeddings[tag][vectors.mask[tag]]
        rows[tag] = own if count == most else own[torch.arange(most) % count]
    with storage.whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(rows.flatten(0, 1), file)


def _open(path: Path) -> tuple[TagEmbeddings | Tensor, str]:
    """Embeddings with their metadata, or a bare tensor; and what to call it in a message."""
    if path.is_dir():
        path = path / TAGS_FILE
    if not path.is_file():
        raise UserError(f"no such file of embeddings: {path}")
    if container_of(path) == "safetensors":
        tensors, metadata = open_safetensors(path)
        if METADATA_KEY in metadata and {"embeddings", "mask"} <= tensors.keys():
            return _own_layout(tensors, metadata[METADATA_KEY], path), str(path)
        return _table(tensors, path)
    content = load_torch(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, Tensor):
        return content, str(path)
    if isinstance(content, Mapping):
        return _table(content, path)
    raise UserError(f"{path} holds a {type(content).__name__}, not a tensor of embeddings")


def _own_layout(tensors: Mapping[str, Tensor], metadata: str, path: Path) -> TagEmbeddings:
    try:
        said = json.loads(metadata)
        vectors = TagEmbeddings(tensors["embeddings"], tensors["mask"], said["tag_digest"], said["encoder"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not what embed writes ({error}): run embed again") from None
    if vectors.embeddings.dim() != 3 or vectors.mask.shape != vectors.embeddings.shape[:2]:
        raise UserError(f"{path} is not what embed writes (rows and mask have different shapes): run embed again")
    return vectors


def _table(tensors: Mapping[Any, Any], path: Path) -> tuple[Tensor, str]:
    for key, value in tensors.items():
        if str(key).rpartition(".")[2] == LABEL_EMBED and isinstance(value, Tensor):
            return value, f"{key} of {path}"
    keys = ", ".join(map(str, list(tensors)[:SHOWN])) or "none"
    raise UserError(f"{path} has no embeddings of tags ({LABEL_EMBED}): its first keys are {keys}")


def _float32(rows: Tensor, source: str) -> Tensor:
    if not rows.is_floating_point():
        raise UserError(f"{source} is of {str(rows.dtype).removeprefix('torch.')}: embeddings are floating point")
    if rows.dtype == torch.float32:
        return rows
    say(f"{source} is of {str(rows.dtype).removeprefix('torch.')}: converted to float32, as the public file is")
    return rows.float()
