"""Checks of the tag list: tags without images, names, and what else must have as many lines as it (F08, F09, F10)."""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open

from ramflow.audit.findings import without_sample
from ramflow.errors import UserError
from ramflow.tags import TagTable


def find_in_list(table: TagTable) -> list[pl.LazyFrame]:
    """Tags that are missing, rare, or have the name of another (``FOUND_SCHEMA``); their images are counted."""
    tags = list(zip(table.names, table.counts, table.status, strict=True))
    return [
        without_sample("tags.missing", [name for name, _, status in tags if status == "missing"]),
        without_sample("tags.rare", [f"{name}: {count} images" for name, count, status in tags if status == "rare"]),
        without_sample("tags.duplicate_name", _on_several_lines(table)),
    ]


def _on_several_lines(table: TagTable) -> list[str]:
    """Names that several tags have which are not dropped, with their ids."""
    dropped = set(table.dropped)
    used = [(i, name) for i, name in enumerate(table.names) if i not in dropped]
    twice = set(TagTable([name for _, name in used]).duplicates())
    return [f"{name}: id {i}" for i, name in used if name in twice]


def long_tail(table: TagTable) -> dict[str, int]:
    """How uneven the tags are that are not dropped: most and median images a tag, how few have half and 90 % of all."""
    used = np.delete(np.array(table.counts, dtype=np.int64), table.dropped)
    counts = np.sort(used)[::-1]
    sums = np.cumsum(counts)
    total = int(sums[-1])
    return {
        "positives": total,
        "most": int(counts[0]),
        "median": int(counts[len(counts) // 2]),
        "tags_with_half": int(np.searchsorted(sums, total / 2) + 1) if total else 0,
        "tags_with_90_percent": int(np.searchsorted(sums, 0.9 * total) + 1) if total else 0,
    }


def find_in_thresholds(path: Path, table: TagTable) -> tuple[pl.LazyFrame, int]:
    """What is wrong with a list of thresholds, a number a line, as upstream's; and how many lines it has.

    Raises:
        UserError: it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError(f"{path} is not a list of thresholds: a number of 0 to 1 a line is expected") from None
    details = [f"line {n}: {line.strip()[:40]!r}" for n, line in enumerate(lines, 1) if not _is_threshold(line)]
    if len(lines) != len(table):
        details.insert(0, f"{len(lines)} lines for {len(table)} tags")
    return without_sample("tags.thresholds", details), len(lines)


def _is_threshold(line: str) -> bool:
    try:
        return 0 <= float(line) <= 1
    except ValueError:
        return False


def find_in_embeddings(path: Path, table: TagTable) -> pl.LazyFrame:
    """What is wrong with the embeddings of tags, as far as it shows without loading them.

    Raises:
        UserError: it is neither ``tags.safetensors`` of the stage embed nor a zip file of torch.
    """
    find = _in_safetensors if path.suffix == ".safetensors" else _in_zip
    return without_sample("tags.embeddings", find(path, table))


def _in_zip(path: Path, table: TagTable) -> list[str]:
    """Of a file of ``torch.save``, whose largest tensor has as many rows a tag as there are descriptions."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} holds no embeddings: tags.safetensors of embed, or a file of torch.save, is expected")
    with zipfile.ZipFile(path) as file:
        size = max((info.file_size for info in file.infolist() if "/data/" in info.filename), default=0)
        pickles = [file.read(name) for name in file.namelist() if name.endswith("/data.pkl")]
    shapes = [shape for text in pickles for shape in _shapes(text) if math.prod(shape) in (size // 2, size // 4)]
    rows = shapes[0][0] if shapes else size // 4
    if rows and rows % len(table) == 0:
        return []
    return [f"{path.name} holds {rows} {'rows' if shapes else 'numbers'}, not as many for each of {len(table)} tags"]


def _shapes(text: bytes) -> Iterator[tuple[int, ...]]:
    """Shapes of tensors that a pickle names, read off it without running it: all tuples of one to three numbers."""
    numbers: list[int] = []
    for operation, value, _ in pickletools.genops(text):
        if isinstance(value, int) and operation.name.startswith("BININT"):
            numbers.append(value)
        elif operation.name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            yield tuple(numbers[-int(operation.name[-1]) :])


def _in_safetensors(path: Path, table: TagTable) -> list[str]:
    try:
        with safe_open(path, framework="numpy") as file:
            rows = int(file.get_slice("embeddings").get_shape()[0])
            digest: Any = json.loads((file.metadata() or {}).get("ramflow", "{}")).get("tag_digest")
    except (SafetensorError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as embeddings of tags ({error}): make it again with embed") from None
    if rows != len(table):
        return [f"{path.name} holds {rows} tags; the tag list has {len(table)}"]
    if digest not in (None, table.digest):
        return [f"{path.name} was made for another tag list of the same length"]
    return []
