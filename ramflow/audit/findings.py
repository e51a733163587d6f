"""Findings: one row for every failure of a check, whatever the family; on disk, so that memory holds a few of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.checks import KINDS
from ramflow.verdict import Severity

FAULT_SCHEMA: dict[str, Any] = {"check": pl.String, "row": pl.Int64, "detail": pl.String}
"""What a family finds in the records of one unit; ``row`` is the record's in the unit."""

FOUND_SCHEMA: dict[str, Any] = {
    "check": pl.String,
    "sample": pl.Int64,
    "key": pl.String,
    "image_path": pl.String,
    "detail": pl.String,
}
"""A failure in the whole set; ``sample`` and ``key`` are null where it is not one of a sample."""

FINDINGS_COLUMNS = ("check", "severity", "sample", "key", "image_path", "detail")
ROW_GROUP = 1 << 16
ORDER = pl.Enum([kind.id for kind in KINDS])


def faults(check: str, rows: Iterable[int] | pl.Series, detail: str | pl.Series) -> pl.DataFrame:
    """Failures of one check in the records ``rows`` of a unit (``FAULT_SCHEMA``)."""
    row = rows if isinstance(rows, pl.Series) else pl.Series(np.asarray(rows, dtype=np.int64))
    details = pl.lit(detail) if isinstance(detail, str) else detail
    frame = row.alias("row").to_frame().with_columns(check=pl.lit(check), detail=details)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in FAULT_SCHEMA.items())


Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def found(check: str, rows: Frame, detail: pl.Expr | pl.Series) -> Frame:
    """Failures of one check (``FOUND_SCHEMA``); columns that ``rows`` lacks are null."""
    named = rows.with_columns(check=pl.lit(check), detail=detail)
    columns = set(named.collect_schema())
    return named.select(
        (pl.col(name) if name in columns else pl.lit(None).alias(name)).cast(dtype)
        for name, dtype in FOUND_SCHEMA.items()
    )


def without_sample(check: str, details: Iterable[str]) -> pl.LazyFrame:
    """Failures of one check that are not those of a sample (``FOUND_SCHEMA``)."""
    return found(check, pl.LazyFrame({"detail": sorted(details)}, schema={"detail": pl.String}), pl.col("detail"))


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Failures in the order of check, sample, path and detail."""
    return rows.sort(pl.col("check").cast(ORDER), "sample", "image_path", "detail", nulls_last=True)


class Store:
    """Failures on disk, some files a check; rows of a check are added in their order."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.files: dict[str, list[Path]] = {}
        self.counts: dict[str, int] = {}

    def place(self, check: str, number: int) -> Path:
        """The file of a check with this number, from 0."""
        return self.directory / f"{check}-{number:06d}.parquet"

    def add(self, rows: pl.DataFrame) -> None:
        """Add failures (``FOUND_SCHEMA``) of any checks; those of a check follow on those added before."""
        for (name,), part in rows.partition_by("check", as_dict=True).items():
            check = str(name)
            files = self.files.setdefault(check, [])
            path = self.place(check, len(files))
            part.write_parquet(path, compression="lz4", statistics=False)
            files.append(path)
            self.counts[check] = self.counts.get(check, 0) + len(part)


class Findings:
    """All failures of an audit, a check at a time: those of samples, store after store, then the others."""

    def __init__(self, stores: Iterable[Store], tables: Iterable[pl.LazyFrame] = ()) -> None:
        """``tables`` are failures (``FOUND_SCHEMA``), each table of one check, that are not those of a sample."""
        self._parts: dict[str, list[pl.LazyFrame]] = {}
        self._counts: dict[str, int] = {}
        for store in stores:
            for check, files in store.files.items():
                self._add(check, pl.scan_parquet(files, schema=FOUND_SCHEMA), store.counts[check])
        for table in tables:
            counted = table.group_by("check").len().collect(engine="streaming")
            for check, count in counted.iter_rows():
                self._add(check, table, count)

    def _add(self, check: str, rows: pl.LazyFrame, count: int) -> None:
        self._parts.setdefault(check, []).append(rows)
        self._counts[check] = self._counts.get(check, 0) + count

    def count(self, check: str) -> int:
        """Failures of a check."""
        return self._counts.get(check, 0)

    def head(self, check: str, rows: int) -> pl.DataFrame:
        """The first failures of a check (``FOUND_SCHEMA``)."""
        return self._scan(check).head(rows).collect()

    def samples(self, check: str) -> npt.NDArray[np.int64]:
        """Samples that a check found, as often as it did."""
        return self._scan(check).select("sample").drop_nulls().collect(engine="streaming")["sample"].to_numpy()

    def _scan(self, check: str) -> pl.LazyFrame:
        return pl.concat([pl.LazyFrame(schema=FOUND_SCHEMA), *self._parts.get(check, [])])

    def write(self, path: Path, severity: Mapping[str, Severity], checks: Sequence[str]) -> None:
        """Write the failures of ``checks``, one check after another, with the columns ``FINDINGS_COLUMNS``."""
        parts = [self._scan(c).with_columns(severity=pl.lit(severity[c])) for c in checks if self.count(c)]
        schema = FOUND_SCHEMA | {"severity": pl.String}
        rows = pl.concat([pl.LazyFrame(schema=schema), *parts]).select(FINDINGS_COLUMNS)
        rows.sink_parquet(path, row_group_size=ROW_GROUP, maintain_order=True)
