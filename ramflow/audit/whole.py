"""The whole set as its checks see it: a number or two of every record as arrays, everything else left on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.findings import Store, found
from ramflow.audit.part import Chunk

Samples = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


class Range(NamedTuple):
    """Consecutive records: a split of a packed set, or an annotation file; ``first`` is the number of the first."""

    first: int
    split: str
    source: str | None = None


class Failing(NamedTuple):
    """Failures of a check of the whole set: the records, ascending, and what the finding says of some of them."""

    check: str
    samples: Samples
    detail: Callable[[slice], pl.Series]


class Whole:
    """All records in order; a record's number is its place in it.

    Columns are read when they are asked for: 8 bytes a record and column, and nothing else that grows with the set.
    """

    def __init__(self, chunks: Sequence[Chunk], ranges: Sequence[Range], *, packed: bool) -> None:
        self.chunks = chunks
        self.ranges = ranges
        self.packed = packed
        self._firsts = np.array([r.first for r in ranges], dtype=np.int64)

    def __len__(self) -> int:
        return self.chunks[-1].first + self.chunks[-1].rows if self.chunks else 0

    def column(self, name: str) -> pl.Series:
        """A column of the index of samples, of all records."""
        files = [chunk.samples for chunk in self.chunks]
        return pl.read_parquet(files, columns=[name])[name] if files else pl.Series(name, [], pl.UInt64)

    def hashes(self) -> Keys:
        """The hash of every caption that is not blank, and not an earlier one of its record."""
        files = [chunk.captions for chunk in self.chunks]
        return pl.read_parquet(files, columns=["hash"])["hash"].to_numpy() if files else np.zeros(0, np.uint64)

    def range_of(self, samples: Samples) -> Samples:
        """The number, in ``ranges``, of the range that each record belongs to."""
        return np.searchsorted(self._firsts, samples, side="right") - 1

    def splits(self, samples: Samples) -> pl.Series:
        """The split of each record."""
        return pl.Series("split", [r.split for r in self.ranges], pl.String).gather(self.range_of(samples))

    def keys(self, samples: Samples) -> pl.Series:
        """The name of each record: the sample's key, or ``SOURCE[NUMBER]``, its place in its annotation file."""
        of = self.range_of(samples)
        if not self.packed:
            names = pl.Series([r.source for r in self.ranges], dtype=pl.String).gather(of)
            return format_series("{}[{}]", names, pl.Series(samples - self._firsts[of]))
        digits = pl.Series(self._numbers[samples]).cast(pl.String).str.zfill(9)
        return format_series("{}_{}", self.splits(samples), digits)

    @cached_property
    def _numbers(self) -> npt.NDArray[np.uint32]:
        return self.column("number").to_numpy()

    def write(self, failures: Sequence[Failing], store: Store) -> None:
        """Add failures to ``store``, a chunk of the records at a time."""
        for chunk in self.chunks:
            parts = []
            for check, samples, detail in failures:
                start, stop = np.searchsorted(samples, (chunk.first, chunk.first + chunk.rows))
                if start < stop:
                    rows = self.described(chunk, samples[start:stop])
                    parts.append(found(check, rows, detail(slice(start, stop))))
            if parts:
                store.add(pl.concat(parts))

    def described(self, chunk: Chunk, samples: Samples) -> pl.DataFrame:
        """Number, key and path of some records of a chunk."""
        path = pl.read_parquet(chunk.samples, columns=["image_path"]).to_series()
        own = path.gather(samples - chunk.first)
        return pl.DataFrame({"sample": samples, "key": self.keys(samples), "image_path": own})


def format_series(template: str, *values: Any) -> pl.Series:
    """Each ``{}`` of ``template`` replaced by a value of a series."""
    return pl.select(pl.format(template, *values)).to_series()


def first_of(keys: npt.NDArray[Any]) -> Samples:
    """For each of ``keys`` [n] the place of the first one that is equal to it."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(_begins(keys[order]))
    firsts = np.repeat(order[starts], np.diff(starts, append=len(keys)))
    result = np.empty(len(keys), dtype=np.int64)
    result[order] = firsts
    return result


def frequent(keys: npt.NDArray[Any], least: int) -> tuple[npt.NDArray[Any], Samples]:
    """The ``keys`` that occur ``least`` times or more, ascending, and how often."""
    ordered = np.sort(keys)
    starts = np.flatnonzero(_begins(ordered))
    counts = np.diff(starts, append=len(keys))
    return ordered[starts][counts >= least], counts[counts >= least]


def _begins(ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    begins = np.ones(len(ordered), dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    return begins
