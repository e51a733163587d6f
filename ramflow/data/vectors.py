"""Vectors of tags and captions on disk, as the embed stage writes them and training reads them.

``tags.safetensors``: ``embeddings`` float32 [tags, descriptions, width], unit rows, zeros where ``mask`` (bool
[tags, descriptions]) is false. ``captions.safetensors``: ``vectors`` float16 [captions, width], unit rows, in manifest
order, and ``offsets`` int64 [samples + 1]: the captions of sample i are rows offsets[i] to offsets[i + 1].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ramflow.errors import UserError

TAGS_FILE = "tags.safetensors"
CAPTIONS_FILE = "captions.safetensors"
METADATA_KEY = "ramflow"


@dataclass(frozen=True)
class TagEmbeddings:
    """Description vectors of every tag, in the order of the tag table.

    ``embeddings`` float32 [tags, descriptions, width]; ``mask`` bool [tags, descriptions], false where a tag has fewer
    descriptions than the others; ``tag_digest`` is ``TagTable.digest``; ``encoder`` says which text encoder made them.
    """

    embeddings: Tensor
    mask: Tensor
    tag_digest: str
    encoder: dict[str, Any]

    def write(self, directory: Path) -> None:
        """Write ``tags.safetensors`` into ``directory``, the same bytes for the same content."""
        tensors = {"embeddings": self.embeddings.contiguous(), "mask": self.mask.contiguous()}
        save_tensors(tensors, directory / TAGS_FILE, {"tag_digest": self.tag_digest, "encoder": self.encoder})


def read_tag_embeddings(directory: Path) -> TagEmbeddings:
    """Read ``directory/tags.safetensors``.

    Raises:
        UserError: no such file, or it is damaged or not written by the embed stage.
    """
    path = directory / TAGS_FILE
    with _readable(path):
        file: Any = safe_open(path, framework="pt")
        metadata = json.loads(file.metadata()[METADATA_KEY])
        embeddings, mask = file.get_tensor("embeddings"), file.get_tensor("mask")
        return TagEmbeddings(embeddings, mask, metadata["tag_digest"], metadata["encoder"])


class CaptionVectors:
    """Caption vectors by sample, memory-mapped: only the rows asked for are read."""

    def __init__(self, directory: Path) -> None:
        """Open ``directory/captions.safetensors``.

        Raises:
            UserError: no such file, or it is damaged or not written by the embed stage.
        """
        self._directory = directory
        with _readable(directory / CAPTIONS_FILE):
            file: Any = safe_open(directory / CAPTIONS_FILE, framework="pt")
            self._vectors = file.get_slice("vectors")
            self._offsets = file.get_slice("offsets")
        self.width: int = self._vectors.get_shape()[1]

    def __reduce__(self) -> tuple[type[CaptionVectors], tuple[Path]]:
        """Another process maps the file itself."""
        return CaptionVectors, (self._directory,)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._offsets.get_shape()[0]) - 1

    def of(self, sample: int) -> Tensor:
        """The vectors of one sample's captions, in the manifest's order: float32 [captions of the sample, width]."""
        first, end = self._offsets[sample : sample + 2].tolist()
        rows: Tensor = self._vectors[first:end]
        return rows.float()


def write_caption_vectors(directory: Path, vectors: Tensor, counts: list[int]) -> None:
    """Write ``captions.safetensors`` into ``directory``.

    Args:
        directory: where to.
        vectors: float16 [captions, width], in manifest order.
        counts: captions of each sample, in manifest order.
    """
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor(counts, dtype=torch.int64).cumsum(0)
    assert int(offsets[-1]) == len(vectors)
    save_tensors({"vectors": vectors.contiguous(), "offsets": offsets}, directory / CAPTIONS_FILE, {})


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, Any]) -> None:
    """Write a safetensors file with ``metadata`` as JSON under one key.

    safetensors writes several metadata keys in random order; one key keeps the same content the same bytes.
    """
    text = json.dumps(metadata, sort_keys=True)
    safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: text})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such file: {path}: make it with `ramflow embed`") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not what embed writes ({error}): run embed again") from None
