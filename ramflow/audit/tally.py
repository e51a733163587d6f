"""What is counted of every source in every split: records, captions, tags, and the images of each tag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.data.dataset import SPLITS

TALLY_SCHEMA = {"source": pl.String, "split": pl.String, "id": pl.Int32, "positives": pl.Int64, "aside": pl.Int64}

Counts = npt.NDArray[np.int64]


@dataclass
class Counted:
    """Counts of one source in one split.

    ``tags`` counts the ids of ``union_label_id``, as they stand. ``positives`` int64 [tags] counts the records of each
    tag, ``aside`` those of them that are quarantined for what is wrong with the record alone.
    """

    records: int
    captions: int
    tags: int
    positives: Counts
    aside: Counts

    def add(self, other: Counted) -> None:
        """Count other records of the same source and split as well."""
        self.records += other.records
        self.captions += other.captions
        self.tags += other.tags
        self.positives = self.positives + other.positives
        self.aside = self.aside + other.aside


class Tally:
    """Counts by (source, split), in the order in which they came."""

    def __init__(self, rows: dict[tuple[str, str], Counted] | None = None) -> None:
        self.rows = rows or {}

    def add(self, other: Tally) -> None:
        """Add the counts of other records."""
        for place, row in other.rows.items():
            if place in self.rows:
                self.rows[place].add(row)
            else:
                self.rows[place] = row

    def total(self, count: str) -> int:
        """``records``, ``captions`` or ``tags`` of all sources."""
        return sum(getattr(row, count) for row in self.rows.values())

    def ordered(self) -> Iterator[tuple[str, str, Counted]]:
        """Source, split and counts, the splits in their order."""
        places = sorted(self.rows, key=lambda place: SPLITS.index(place[1]))
        return ((source, split, self.rows[source, split]) for source, split in places)

    def frame(self) -> pl.DataFrame:
        """A row a source, split and tag (``TALLY_SCHEMA``)."""
        frames = [
            pl.DataFrame({"id": np.arange(len(row.positives)), "positives": row.positives, "aside": row.aside})
            .with_columns(source=pl.lit(source), split=pl.lit(split))
            .select(pl.col(name).cast(dtype) for name, dtype in TALLY_SCHEMA.items())
            for source, split, row in self.ordered()
        ]
        return pl.concat([pl.DataFrame(schema=TALLY_SCHEMA), *frames])

    def positives(self, split: str, tags: int) -> Counts:
        """Records of each tag in a split, int64 [tags], without those set aside."""
        counted = [row.positives - row.aside for (_, s), row in self.rows.items() if s == split]
        return sum(counted, np.zeros(tags, dtype=np.int64))

    def write(self, directory: Path) -> dict[str, list[int]]:
        """Write the counts of tags into ``directory``; returns the others, for JSON."""
        self.frame().write_parquet(directory / "tally.parquet")
        return {f"{split}={source}": [row.records, row.captions, row.tags] for source, split, row in self.ordered()}


def read_tally(directory: Path, others: dict[str, list[int]]) -> Tally:
    """What :meth:`Tally.write` wrote and returned."""
    table = pl.read_parquet(directory / "tally.parquet").partition_by("source", "split", as_dict=True)
    rows = {}
    for place, counts in others.items():
        split, _, source = place.partition("=")
        part = table[source, split]
        records, captions, tags = counts
        positives, aside = part["positives"].to_numpy(), part["aside"].to_numpy()
        rows[source, split] = Counted(records, captions, tags, positives, aside)
    return Tally(rows)
