"""``index.safetensors``: what training reads of a sample, memory-mapped, a few microseconds a sample.

``offset`` and ``length`` int64 [samples] (of the image in its shard); ``union_offsets`` int64 [samples + 1] and
``union_ids`` int32 (tags of sample i are union_offsets[i] to union_offsets[i + 1]); ``caption_offsets`` int64
[samples + 1] and ``caption_blank`` uint8 (1: the caption is empty or white space), in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.data import tensors

INDEX_FILE = "index.safetensors"


class Index:
    """Places, tags and captions of samples by number; cheap to hand to another process."""

    def __init__(self, path: Path) -> None:
        """Map ``path``.

        Raises:
            UserError: it is gone or damaged.
        """
        self._slices = tensors.Slices(path)

    def __len__(self) -> int:
        return self._slices.length("offset")

    def place(self, sample: int) -> tuple[int, int]:
        """Offset and length in bytes of the image in its shard."""
        rows = slice(sample, sample + 1)
        return int(self._slices["offset", rows][0]), int(self._slices["length", rows][0])

    def union_tags(self, sample: int) -> npt.NDArray[np.int32]:
        """Tag ids of a sample, as annotated."""
        first, end = self._slices["union_offsets", slice(sample, sample + 2)]
        return self._slices["union_ids", slice(int(first), int(end))]

    def usable_captions(self, sample: int) -> npt.NDArray[np.int64]:
        """Numbers, within the sample, of its captions that hold more than white space."""
        first, end = self._slices["caption_offsets", slice(sample, sample + 2)]
        return np.flatnonzero(self._slices["caption_blank", slice(int(first), int(end))] == 0)


def write_index(path: Path, manifest_pieces: Sequence[Path]) -> None:
    """Write the index of the samples in ``manifest_pieces`` (Parquet, in order), holding one piece at a time."""
    counts = pl.concat([pl.scan_parquet(piece).select(
        samples=pl.len(),
        union=pl.col("union_tags").list.len().cast(pl.Int64).sum(),
        captions=pl.col("captions").list.len().cast(pl.Int64).sum(),
    ) for piece in manifest_pieces]).sum().collect() if manifest_pieces else None  # fmt: skip
    samples, union, captions = counts.row(0) if counts is not None else (0, 0, 0)
    arrays = tensors.create(path, {
        "offset": ("int64", (samples,)),
        "length": ("int64", (samples,)),
        "union_offsets": ("int64", (samples + 1,)),
        "caption_offsets": ("int64", (samples + 1,)),
        "union_ids": ("int32", (union,)),
        "caption_blank": ("uint8", (captions,)),
    })  # fmt: skip
    first = 0
    for piece in manifest_pieces:
        first = _fill(arrays, first, pl.read_parquet(piece, columns=["offset", "length", "union_tags", "captions"]))
    assert first == samples


def _fill(arrays: dict[str, npt.NDArray[Any]], first: int, rows: pl.DataFrame) -> int:
    """Write the rows of one piece from sample ``first`` on; returns the number of the sample after them."""
    end = first + len(rows)
    arrays["offset"][first:end] = rows["offset"].to_numpy()
    arrays["length"][first:end] = rows["length"].to_numpy()
    blank = pl.col("captions").list.eval(pl.element().str.strip_chars() == "").cast(pl.List(pl.UInt8))
    for offsets, values, column in (
        ("union_offsets", "union_ids", rows["union_tags"]),
        ("caption_offsets", "caption_blank", rows.select(blank).to_series()),
    ):
        lengths = column.list.len().to_numpy().astype(np.int64)
        start = int(arrays[offsets][first])
        arrays[offsets][first + 1 : end + 1] = start + np.cumsum(lengths)
        arrays[values][start : start + int(lengths.sum())] = column.explode(empty_as_null=False).to_numpy()
    return end
