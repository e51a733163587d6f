"""What follows for the whole set from its parts: the same whether one machine made them, or many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ramflow.audit import counts, dataset, likeness, tag_list
from ramflow.audit.benchmarks import read_benchmarks
from ramflow.audit.captions import write_shared_captions
from ramflow.audit.checks import KINDS, Needs
from ramflow.audit.findings import Findings, Store, found
from ramflow.audit.quarantine import Quarantine
from ramflow.audit.subject import Compared, Subject
from ramflow.audit.summary import FINDINGS_FILE, checks
from ramflow.data.annotations import OUTSIDE
from ramflow.data.audited import QUARANTINE_FILE, TAG_COUNTS_FILE, TAG_STATUS_FILE
from ramflow.data.dataset import SPLITS
from ramflow.settings import AuditSettings
from ramflow.tags import TagTable
from ramflow.verdict import Severity, Verdict, share_of


@dataclass
class Outcome:
    """What checks that are not of a sample found, how many things they looked at, by check, and their figures."""

    tables: list[pl.LazyFrame] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def conclude(settings: AuditSettings, subject: Subject, compared: Compared, out: Path, work: Path) -> Verdict:
    """Check the set as a whole, and write findings, quarantine and counts into ``out``.

    Args:
        settings: what is accepted.
        subject: what was found and counted of every record.
        compared: what the set is compared with.
        out: the directory to fill.
        work: a directory for what memory does not hold; the caller removes it.
    """
    store = Store(work / "set")
    _find_in_set(settings, subject, compared, store)
    of_samples = [*(part.found for part in subject.parts), store]
    quarantine = Quarantine(Findings(of_samples), len(subject.whole))
    table = _tag_status(settings, subject, quarantine, Findings(of_samples[:-1]))
    outcome = _compare(settings, subject, compared, table)
    findings = Findings(of_samples, outcome.tables)

    if subject.dataset is not None:
        quarantine.write(out / QUARANTINE_FILE, subject.whole, work)
    table.write(out / TAG_STATUS_FILE)
    subject.tally.frame().drop("aside").write_parquet(out / TAG_COUNTS_FILE)
    totals = {"record": sum(s["records"] for s in subject.sources.values()), "image": len(subject.whole),
              "caption": subject.tally.total("captions"), "tag": len(table), "file": 1} | outcome.totals  # fmt: skip
    severity: dict[str, Severity] = {kind.id: kind.severity for kind in KINDS}
    limits = {"images.unusable": share_of(settings.max_unusable_share, totals["record"])}
    allowed = share_of(settings.max_missing_tags_share, len(table))
    if len(table.missing) > allowed:
        severity["tags.missing"], limits["tags.missing"] = "error", allowed
    kinds = [kind for kind in KINDS if kind.made_with(_given(settings, subject, compared))]
    findings.write(out / FINDINGS_FILE, severity, [kind.id for kind in kinds])
    metrics = _metrics(subject, quarantine, table) | outcome.metrics
    unusable = sum(part.unusable for part in subject.parts) + findings.count("set.missing_image")
    stage = "audit" if subject.dataset is not None else "audit-annotations"
    return Verdict(stage, checks(kinds, findings, unusable, totals, severity, limits), metrics)


def _given(settings: AuditSettings, subject: Subject, compared: Compared) -> list[Needs]:
    at_hand: dict[Needs, object] = {
        "images": subject.dataset,
        "benchmarks": compared.benchmarks,
        "previous": compared.previous,
        "thresholds": compared.thresholds,
        "embeddings": compared.embeddings,
        "expected": settings.expected or None,
    }
    return [name for name, value in at_hand.items() if value is not None]


def _find_in_set(settings: AuditSettings, subject: Subject, compared: Compared, store: Store) -> None:
    """Failures of samples that show only beside the others."""
    whole = subject.whole
    write_shared_captions(whole, settings.shared_caption_records, store)
    failures = dataset.duplicate_keys(whole)
    if subject.dataset is not None:
        failures += dataset.same_pictures(whole, settings.placeholder_records)
        seen = None if compared.benchmarks is None else read_benchmarks(compared.benchmarks, settings)
        failures += likeness.find(whole, settings.near_radius, seen)
    whole.write(failures, store)


def _tag_status(settings: AuditSettings, subject: Subject, quarantine: Quarantine, single: Findings) -> TagTable:
    """The tag list, but for its descriptions, with the images of the train split that are not quarantined.

    ``single`` are the findings of single records: what they quarantine is not among the counts of the tally.
    """
    positives = subject.tally.positives("train", len(subject.tags))
    if subject.dataset is not None:
        train = subject.dataset.splits["train"]
        also = quarantine.mask & ~Quarantine(single, len(subject.whole)).mask
        for sample in np.flatnonzero(also[train.start : train.stop]) + train.start:
            ids = np.unique(subject.dataset.union_tags(int(sample)))
            positives[ids[(ids >= 0) & (ids < len(positives))]] -= 1
    return replace(subject.tags.with_counts(positives.tolist(), settings.rare_below), descriptions=[])


def _compare(settings: AuditSettings, subject: Subject, compared: Compared, table: TagTable) -> Outcome:
    """Failures that are not those of a sample: missing records, the tag list, the counts."""
    outside = pl.col("image_path").str.contains(OUTSIDE)
    missing = subject.missing.sort("image_path", "reason")
    outcome = Outcome([
        found("set.missing_image", missing, pl.col("reason")),
        found("set.absolute_path", missing.filter(outside), pl.col("reason")),
        *tag_list.find_in_list(table),
    ])  # fmt: skip
    if compared.thresholds is not None:
        failures, outcome.totals["tags.thresholds"] = tag_list.find_in_thresholds(compared.thresholds, table)
        outcome.tables.append(failures)
    if compared.embeddings is not None:
        outcome.tables.append(tag_list.find_in_embeddings(compared.embeddings, table))
    if expected := settings.expected:
        outcome.tables.append(counts.unexpected(subject.sources, expected, settings.max_count_deviation))
        outcome.totals["set.unexpected_count"] = sum(len(e.model_dump(exclude_none=True)) for e in expected.values())
    if compared.previous is not None:
        previous = counts.read_previous(compared.previous)
        tables, figures = counts.drift(subject.sources, subject.tally, table, previous, settings.max_drift)
        outcome.tables += tables
        outcome.totals |= {"set.drift_counts": len(counts.COUNTS) * len(figures), "set.drift_tags": len(figures)}
        outcome.metrics["drift"] = figures
    return outcome


def _metrics(subject: Subject, quarantine: Quarantine, table: TagTable) -> dict[str, Any]:
    each = {split: 0 for split in SPLITS}
    for _, split, row in subject.tally.ordered():
        each[split] += row.records
    each = {split: count for split, count in sorted(each.items()) if count}
    kind = "records" if subject.dataset is None else "images"
    metrics: dict[str, Any] = {kind: len(subject.whole)}
    if subject.dataset is not None:
        metrics |= {"unusable": sum(part.unusable for part in subject.parts), "quarantined": len(quarantine)}
    return metrics | {
        "captions": subject.tally.total("captions"),
        "tags": len(table),
        "missing_tags": table.status.count("missing"),
        "rare_tags": table.status.count("rare"),
        **({"dropped_tags": len(table.dropped)} if table.dropped else {}),
        f"{kind}_per_split": each,
        "sources": subject.sources,
        "long_tail": tag_list.long_tail(table),
    }
