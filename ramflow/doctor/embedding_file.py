"""A file of tag embeddings: the public .pth, a safetensors file, or the output of ramflow's embed stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ramflow.doctor.recipe import PUBLIC_DESCRIPTIONS
from ramflow.errors import UserError
from ramflow.weights.containers import container_of, load_torch, open_safetensors

TAGS_FILE = "tags.safetensors"


@dataclass(frozen=True)
class Embeddings:
    """Rows [rows, width] in the order of tags, and how many a tag, where the file says it."""

    path: Path
    rows: Tensor
    per_tag: int | None

    @property
    def tags(self) -> int | None:
        """The number of tags, by the file's own shape or by 51 rows a tag; None where neither tells."""
        per_tag = self.per_tag or PUBLIC_DESCRIPTIONS
        return None if len(self.rows) % per_tag else len(self.rows) // per_tag

    def first_rows(self) -> Tensor:
        """The first row of every tag [tags, width]."""
        return self.rows[:: self.per_tag or PUBLIC_DESCRIPTIONS]


def read_embedding_file(path: Path) -> Embeddings:
    """Open embeddings; the rows are mapped from the file.

    Raises:
        UserError: nothing there, damaged, or not one matrix of rows.
    """
    file = path / TAGS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no such embedding file: {file}")
    content: object
    if container_of(file) == "safetensors":
        content = open_safetensors(file)[0].get("embeddings")
    else:
        content = load_torch(file)
        if isinstance(content, Mapping) and len(content) == 1:
            content = next(iter(content.values()))
    matrix = isinstance(content, Tensor) and content.ndim in (2, 3) and content.is_floating_point() and len(content) > 0
    if not isinstance(content, Tensor) or not matrix:
        raise UserError(f"{file} is not a file of tag embeddings: one matrix [rows, width] is expected")
    if content.ndim == 3:
        return Embeddings(path, content.flatten(0, 1), content.shape[1])
    return Embeddings(path, content, None)
