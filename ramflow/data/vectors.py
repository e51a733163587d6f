"""Vectors of tags and captions on disk, as the embed stage writes them and training reads them.

``tags.safetensors``: ``embeddings`` float32 [tags, descriptions, width], unit rows, zeros where ``mask`` (bool
[tags, descriptions]) is false. ``captions.safetensors``: ``vectors`` float16 [captions, width], unit rows, in manifest
order, and ``offsets`` int64 [samples + 1]: the captions of sample i are rows offsets[i] to offsets[i + 1].
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ramflow.data import tensors
from ramflow.errors import UserError
from ramflow.storage import whole_file

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
        """Write ``tags.safetensors`` into ``directory``, whole or not at all, the same bytes for the same content."""
        content = {"embeddings": self.embeddings.contiguous(), "mask": self.mask.contiguous()}
        with whole_file(directory / TAGS_FILE) as temporary:
            save_tensors(content, temporary, {"tag_digest": self.tag_digest, "encoder": self.encoder})


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


def write_caption_vectors(directory: Path, vectors: Tensor, counts: Sequence[int]) -> None:
    """Write ``captions.safetensors`` into ``directory`` at once.

    Args:
        directory: where to.
        vectors: float16 [captions, width], in manifest order.
        counts: captions of each sample, in manifest order.
    """
    assert sum(counts) == len(vectors)
    create_caption_file(directory, np.asarray(counts, dtype=np.int64), vectors.shape[1])
    rows = caption_rows(directory)
    rows[:] = vectors.numpy()


def create_caption_file(directory: Path, counts: npt.NDArray[np.int64], width: int) -> None:
    """Make ``captions.safetensors`` in ``directory`` with its offsets, and zeros as vectors, to be filled by rows.

    The file appears whole or not at all. All its room on disk is taken now: a full disk is an error here, and not the
    death of the process that writes to the map.

    Args:
        directory: where to.
        counts: captions of each sample, in manifest order.
        width: of a vector.
    """
    layout = {"offsets": ("int64", (len(counts) + 1,)), "vectors": ("float16", (int(counts.sum()), width))}
    with whole_file(directory / CAPTIONS_FILE) as temporary:
        arrays = tensors.create(temporary, layout)
        with temporary.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, temporary.stat().st_size))
        np.cumsum(counts, out=arrays["offsets"][1:])


def caption_rows(directory: Path) -> npt.NDArray[np.float16]:
    """The vectors of ``directory/captions.safetensors``, float16 [captions, width], mapped for reading and writing."""
    path = directory / CAPTIONS_FILE
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        vectors = json.loads(file.read(length))["vectors"]
    shape = tuple(vectors["shape"])
    if 0 in shape:
        return np.zeros(shape, dtype=np.float16)
    return np.memmap(path, dtype=np.float16, mode="r+", offset=8 + length + vectors["data_offsets"][0], shape=shape)


def save_tensors(content: dict[str, Tensor], path: Path, metadata: dict[str, Any]) -> None:
    """Write a safetensors file with ``metadata`` as JSON under one key.

    safetensors writes several metadata keys in random order; one key keeps the same content the same bytes.
    """
    text = json.dumps(metadata, sort_keys=True)
    safetensors.torch.save_file(content, path, metadata={METADATA_KEY: text})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such file: {path}: make it with `ramflow embed`") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not what embed writes ({error}): run embed again") from None
