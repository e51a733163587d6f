"""The audit stage: all checks over a packed dataset, into findings, quarantine, tag status and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from ramflow.audit import dataset as whole_set
from ramflow.audit import images, tags, text
from ramflow.audit.checks import KINDS, UNUSABLE, Kind
from ramflow.audit.findings import findings, quarantine
from ramflow.data.audited import QUARANTINE_FILE, TAG_STATUS_FILE
from ramflow.data.dataset import Dataset
from ramflow.settings import AuditSettings
from ramflow.tags import TagTable
from ramflow.verdict import MAX_EXAMPLES, Check, Severity, Verdict, check, share_of

FINDINGS_FILE = "findings.parquet"
SEVERITY: dict[str, Severity] = {kind.id: kind.severity for kind in KINDS}


def run(settings: AuditSettings, *, data: Path, out: Path) -> Verdict:
    """Audit the packed dataset ``data`` and write the findings, the quarantine and the tag status into ``out``.

    Raises:
        UserError: ``data`` is not a packed dataset, or is damaged so that its parts cannot be read.
    """
    dataset = Dataset(data)
    samples = dataset.manifest.with_row_index("sample").with_columns(pl.col("sample").cast(pl.Int64))
    in_records = [
        images.find(dataset, settings),
        *text.find(samples, settings),
        *tags.find_in_records(samples, dataset.tags),
        *whole_set.find(samples, dataset.missing),
    ]
    skipped = quarantine(findings(in_records, samples, SEVERITY), samples)
    train = samples.filter(pl.col("split") == "train").join(skipped, on="sample", how="anti")
    table = tags.count_positives(train, dataset.tags, settings.rare_below)
    allowed = share_of(settings.max_missing_tags_share, len(table))
    severity = SEVERITY | ({"tags.missing": "error"} if len(table.missing) > allowed else {})
    rows = findings([*in_records, *tags.find_in_list(table)], samples, severity)

    rows.write_parquet(out / FINDINGS_FILE)
    skipped.write_parquet(out / QUARANTINE_FILE)
    table.write(out / TAG_STATUS_FILE)
    metrics = _metrics(samples, rows, skipped, table)
    records = len(samples) + len(dataset.missing)
    limits = {"images.unusable": share_of(settings.max_unusable_share, records)}
    if severity["tags.missing"] == "error":
        limits["tags.missing"] = allowed
    return Verdict("audit", _checks(rows, metrics, records, severity, limits), metrics)


def _metrics(samples: pl.DataFrame, rows: pl.DataFrame, skipped: pl.DataFrame, table: TagTable) -> dict[str, Any]:
    return {
        "images": len(samples),
        "unusable": rows.filter(pl.col("check").is_in(UNUSABLE))["sample"].n_unique(),
        "quarantined": len(skipped),
        "captions": int(samples["captions"].list.len().sum()),
        "tags": len(table),
        "missing_tags": table.status.count("missing"),
        "rare_tags": table.status.count("rare"),
        "images_per_split": dict(samples.group_by("split").len().sort("split").iter_rows()),
    }


def _checks(
    rows: pl.DataFrame, metrics: dict[str, Any], records: int, severity: dict[str, Severity], limits: dict[str, int]
) -> list[Check]:
    totals = {"image": metrics["images"], "record": records, "caption": metrics["captions"], "tag": metrics["tags"]}
    failed = {str(name): group for (name,), group in rows.group_by("check")}
    no_image = rows.filter(pl.col("check").is_in((*UNUSABLE, "set.missing_image")))
    failed["images.unusable"] = no_image.filter(pl.col("sample").is_null() | pl.col("sample").is_first_distinct())
    return [
        _check(kind, severity[kind.id], failed.get(kind.id, rows.clear()), totals[kind.unit], limits.get(kind.id, 0))
        for kind in KINDS
    ]


def _check(kind: Kind, severity: Severity, failed: pl.DataFrame, total: int, limit: int) -> Check:
    message = f"{len(failed)} of {total} {kind.unit}s {kind.what}"
    if len(failed) > limit:
        message += f", listed in {FINDINGS_FILE}: {kind.advice}"
    names = failed.head(MAX_EXAMPLES).select(pl.coalesce("key", "image_path", "detail")).to_series()
    return check(kind.id, severity, len(failed), total, message, limit=limit, examples=list(names))
