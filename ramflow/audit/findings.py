"""Findings: one row for every failure of a check, whatever the family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ramflow.audit.checks import KINDS, QUARANTINING
from ramflow.verdict import Severity

FOUND_SCHEMA: dict[str, Any] = {"check": pl.String, "sample": pl.Int64, "image_path": pl.String, "detail": pl.String}
"""What a family of checks returns; ``sample`` is null where the failure is not one of a packed sample."""

FINDINGS_COLUMNS = ("check", "severity", "sample", "key", "image_path", "detail")
QUARANTINE_COLUMNS = ("sample", "key", "split", "image_path", "check")
ORDER = pl.Enum([kind.id for kind in KINDS])


def found(check: str, rows: pl.DataFrame, detail: pl.Expr) -> pl.DataFrame:
    """Failures of one check: ``rows`` has ``image_path`` and, for packed samples, ``sample``."""
    if "sample" not in rows.columns:
        rows = rows.with_columns(sample=pl.lit(None, pl.Int64))
    rows = rows.with_columns(check=pl.lit(check), detail=detail)
    return rows.select(pl.col(name).cast(dtype) for name, dtype in FOUND_SCHEMA.items())


def findings(parts: Iterable[pl.DataFrame], samples: pl.DataFrame, severity: Mapping[str, Severity]) -> pl.DataFrame:
    """All failures in order of check, sample, path and detail, with the columns ``FINDINGS_COLUMNS``.

    Args:
        parts: what the families found (``FOUND_SCHEMA``).
        samples: the manifest with its column ``sample``.
        severity: of every check in ``parts``, by id.
    """
    rows = pl.concat([pl.DataFrame(schema=FOUND_SCHEMA), *parts]).join(
        samples.select("sample", "key"), on="sample", how="left"
    )
    order = (pl.col("check").cast(ORDER), "sample", "image_path", "detail")
    named = pl.col("check").replace_strict(dict(severity), return_dtype=pl.String)
    return rows.with_columns(severity=named).sort(*order, nulls_last=True).select(FINDINGS_COLUMNS)


def quarantine(rows: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """One row for every sample that must be skipped, with the first check that says so; in order of samples."""
    bad = rows.filter(pl.col("check").is_in(QUARANTINING)).unique("sample", keep="first", maintain_order=True)
    return bad.select("sample", "check").join(samples, on="sample").sort("sample").select(QUARANTINE_COLUMNS)
