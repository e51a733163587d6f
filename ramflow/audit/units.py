"""Units: what a worker inspects at a time, some consecutive samples of a shard, or a piece of an annotation file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl

from ramflow.audit.records import Records, of_annotations, of_manifest
from ramflow.data.annotations import Piece, decode, no_garbage_collection, pieces, source_of
from ramflow.data.dataset import Dataset, Shard

SAMPLES = 512
PIECE_BYTES = 8 << 20
"""Of an annotation file."""
MANIFEST_ROWS = 1 << 16
"""Rows of the manifest in memory at a time, as many as are stored together; a multiple of ``SAMPLES``."""


@dataclass(frozen=True)
class SampleUnit:
    """Samples of a packed set with their images: rows of its manifest, of one split."""

    split: str
    rows: pl.DataFrame
    dataset: Path

    def read(self) -> Records:
        """The records."""
        return of_manifest(self.rows)


@dataclass(frozen=True)
class PieceUnit:
    """Records of an annotation file."""

    split: str
    source: str
    piece: Piece

    def read(self) -> Records:
        """The records.

        Raises:
            UserError: see :func:`ramflow.data.annotations.parse`.
        """
        with no_garbage_collection():
            return of_annotations(decode(self.piece))


Unit = SampleUnit | PieceUnit


def sample_ranges(shards: Iterable[Shard]) -> list[tuple[str, range]]:
    """The split and the sample numbers of every unit of some shards, in order."""
    return [
        (shard.split, range(max(start, shard.first), min(start + SAMPLES, shard.range.stop)))
        for shard in shards
        for start in range(shard.first - shard.first % SAMPLES, shard.range.stop, SAMPLES)
    ]


def sample_units(dataset: Dataset, ranges: Sequence[tuple[str, range]]) -> Iterator[SampleUnit]:
    """Units of a packed set; the manifest is read a block at a time, and no unit lies across two of them.

    Shards in S3 begin to come here when their first unit is made, which is some units before it is inspected.
    """
    for _, inside in groupby(ranges, lambda unit: unit[1].start // MANIFEST_ROWS):
        units = list(inside)
        first, stop = units[0][1].start, units[-1][1].stop
        table = dataset.scan().slice(first, stop - first).collect()
        for split, samples in units:
            rows = table.slice(samples.start - first, len(samples))
            if dataset.cache is not None and samples.start == dataset.shard_of(samples.start).first:
                dataset.cache.prefetch([rows["shard"][0]])
            yield SampleUnit(split, rows, dataset.directory)


def piece_units(files: Iterable[tuple[str, Path]]) -> list[PieceUnit]:
    """Units of annotation files, each given with its split, in order.

    Raises:
        UserError: a file is missing, not a JSON list, or cut off.
    """
    return [PieceUnit(split, source_of(path), piece) for split, path in files for piece in pieces(path, PIECE_BYTES)]
