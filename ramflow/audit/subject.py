"""What an audit is about: the records of all parts, their counts, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from ramflow.audit.counts import Sources, count_sources
from ramflow.audit.part import Part
from ramflow.audit.tally import Tally
from ramflow.audit.whole import Range, Whole
from ramflow.data.dataset import MISSING_FILE, MISSING_SCHEMA, Dataset
from ramflow.tags import TagTable


@dataclass(frozen=True)
class Compared:
    """What a set is compared with; None is left out."""

    benchmarks: Path | None = None
    previous: Path | None = None
    thresholds: Path | None = None
    embeddings: Path | None = None


@dataclass(frozen=True)
class Subject:
    """What is audited: parts in order, the ranges of their records, the tag list, and the packed set if it is one."""

    parts: Sequence[Part]
    ranges: Sequence[Range]
    tags: TagTable
    dataset: Dataset | None = None

    @cached_property
    def whole(self) -> Whole:
        """The records of all parts."""
        chunks = [chunk for part in self.parts for chunk in part.chunks]
        return Whole(chunks, self.ranges, packed=self.dataset is not None)

    @cached_property
    def tally(self) -> Tally:
        """The counts of all parts."""
        tally = Tally()
        for part in self.parts:
            tally.add(part.tally)
        return tally

    @property
    def missing(self) -> pl.LazyFrame:
        """Records of a packed set that have no image (``MISSING_SCHEMA``)."""
        if self.dataset is None:
            return pl.LazyFrame(schema=MISSING_SCHEMA)
        return pl.scan_parquet(self.dataset.directory / MISSING_FILE)

    @cached_property
    def sources(self) -> Sources:
        """Counts by source."""
        missing = self.missing.group_by("source").len().sort("source").collect(engine="streaming")
        return count_sources(self.tally, dict(missing.iter_rows()))
