"""The verdict's side of the findings: a line for every check that was made, with the first ten examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ramflow.audit.checks import UNUSABLE, Kind
from ramflow.audit.findings import Findings
from ramflow.verdict import MAX_EXAMPLES, Check, Severity, check

FINDINGS_FILE = "findings.parquet"


def checks(
    kinds: Sequence[Kind],
    findings: Findings,
    unusable: int,
    totals: Mapping[str, int],
    severity: Mapping[str, Severity],
    limits: Mapping[str, int],
) -> list[Check]:
    """The answer of every check.

    Args:
        kinds: the checks that were made.
        findings: all failures.
        unusable: records without an image that can be used.
        totals: how many there are, by check or by unit.
        severity: of every check.
        limits: failures that a check lets pass, by check; none where it is left out.
    """
    answers = []
    for kind in kinds:
        if kind.id == "images.unusable":
            count, examples = unusable, _unusable(findings)
        else:
            count, examples = findings.count(kind.id), _names(findings.head(kind.id, MAX_EXAMPLES))
        total, limit = totals[kind.id if kind.id in totals else kind.unit], limits.get(kind.id, 0)
        message = f"{count} of {total} {kind.unit}s {kind.what}"
        if count > limit:
            message += f", listed in {FINDINGS_FILE}: {kind.advice}"
        answers.append(check(kind.id, severity[kind.id], count, total, message, limit=limit, examples=examples))
    return answers


def _unusable(findings: Findings) -> list[str]:
    """The first records without an image that can be used, a sample once."""
    of = (*UNUSABLE, "set.missing_image")
    rows = pl.concat([findings.head(check, MAX_EXAMPLES * len(of)) for check in of])
    return _names(rows.filter(pl.col("sample").is_null() | pl.col("sample").is_first_distinct()).head(MAX_EXAMPLES))


def _names(rows: pl.DataFrame) -> list[str]:
    return list(rows.select(pl.coalesce("key", "image_path", "detail")).to_series())
