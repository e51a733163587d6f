"""A part of an audit on disk: what was found and indexed of a range of the records, before anything is concluded.

``samples-N.parquet`` and ``captions-N.parquet`` are the index of consecutive records, a chunk at a time (see
:class:`ramflow.audit.inspection.Inspected`), ``found/CHECK-N.parquet`` the failures, ``tally.parquet`` and
``part.json`` the counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from ramflow.audit.findings import Store, in_order
from ramflow.audit.inspection import Inspected
from ramflow.audit.tally import Tally, read_tally
from ramflow.errors import UserError

CHUNK_ROWS = 1 << 13
PART_FILE = "part.json"


@dataclass(frozen=True)
class Chunk:
    """The index of ``rows`` records, the first of which has the number ``first`` in the whole set."""

    first: int
    rows: int
    samples: Path
    captions: Path


@dataclass(frozen=True)
class Part:
    """A part read back; ``unusable`` counts the samples whose image no stage can use."""

    chunks: list[Chunk]
    found: Store
    tally: Tally
    unusable: int


class PartWriter:
    """Writes a part, unit after unit, holding one chunk."""

    def __init__(self, directory: Path, first: int = 0) -> None:
        """``first`` is the number of the first record in the whole set."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.rows = 0
        self._first = first
        self._found = Store(directory / "found")
        self._tally = Tally()
        self._unusable = 0
        self._chunks: list[int] = []
        self._waiting: list[Inspected] = []
        self._failures: list[pl.DataFrame] = []

    def add(self, unit: Inspected, key: pl.Expr | None = None) -> None:
        """Add the next unit; ``key`` makes the keys of its failures from ``sample``, the row in the unit."""
        if unit.found is not None:
            found = pl.read_parquet(BytesIO(unit.found))
            named = found if key is None else found.with_columns(key=key)
            self._failures.append(named.with_columns(pl.col("sample") + self._first + self.rows))
        self._tally.add(unit.tally)
        self._unusable += unit.unusable
        self._waiting.append(unit)
        self.rows += unit.rows
        if sum(u.rows for u in self._waiting) >= CHUNK_ROWS:
            self._write_chunk()

    def close(self) -> None:
        """Write what is left, and the counts."""
        if self._waiting:
            self._write_chunk()
        content = {
            "first": self._first,
            "chunks": self._chunks,
            "found": self._found.counts,
            "files": {check: len(files) for check, files in self._found.files.items()},
            "tally": self._tally.write(self.directory),
            "unusable": self._unusable,
        }
        (self.directory / PART_FILE).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _write_chunk(self) -> None:
        samples, captions = _places(self.directory, len(self._chunks))
        if len(self._waiting) == 1:
            samples.write_bytes(self._waiting[0].samples)
            captions.write_bytes(self._waiting[0].captions)
        else:
            _write(samples, [pl.read_parquet(BytesIO(unit.samples)) for unit in self._waiting])
            _write(captions, list(_shifted_captions(self._waiting)))
        if self._failures:
            self._found.add(in_order(pl.concat(self._failures)))
        self._chunks.append(sum(unit.rows for unit in self._waiting))
        self._waiting, self._failures = [], []


def _shifted_captions(units: list[Inspected]) -> Iterable[pl.DataFrame]:
    before = 0
    for unit in units:
        yield pl.read_parquet(BytesIO(unit.captions)).with_columns((pl.col("row") + before).cast(pl.UInt32))
        before += unit.rows


def _write(path: Path, frames: list[pl.DataFrame]) -> None:
    pl.concat(frames).write_parquet(path, compression="lz4", statistics=False)


def _places(directory: Path, chunk: int) -> tuple[Path, Path]:
    return directory / f"samples-{chunk:06d}.parquet", directory / f"captions-{chunk:06d}.parquet"


def read_part(directory: Path) -> Part:
    """Read back what a :class:`PartWriter` wrote.

    Raises:
        UserError: it is no part, or one of another version of ramflow.
    """
    try:
        content: dict[str, Any] = json.loads((directory / PART_FILE).read_text(encoding="utf-8"))
        chunks, first = [], content["first"]
        for number, rows in enumerate(content["chunks"]):
            chunks.append(Chunk(first, rows, *_places(directory, number)))
            first += rows
        found = Store(directory / "found")
        found.counts = content["found"]
        found.files = {c: [found.place(c, n) for n in range(count)] for c, count in content["files"].items()}
        return Part(chunks, found, read_tally(directory, content["tally"]), content["unusable"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory} is not a part of an audit of this version of ramflow ({error})") from None
