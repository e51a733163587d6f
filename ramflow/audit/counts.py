"""Counts of every source against what is expected, and against an earlier audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ramflow.audit.findings import without_sample
from ramflow.audit.tally import Tally
from ramflow.data.audited import TAG_COUNTS_FILE, TAG_STATUS_FILE
from ramflow.errors import UserError
from ramflow.settings import ExpectedCounts
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import read_verdict

COUNTS = ("records", "captions", "tags")
MOST_CHANGED = 5

Sources = dict[str, dict[str, int]]
"""``records`` (with and without an image), ``images`` (those with one), ``captions`` and ``tags`` by source."""


def count_sources(tally: Tally, missing: Mapping[str, int]) -> Sources:
    """Counts of every source over all splits; ``missing`` are records without an image, whose rest is unknown."""
    sources: Sources = {}
    for source, _, row in tally.ordered():
        counts = sources.setdefault(source, {"records": 0, "images": 0, "captions": 0, "tags": 0})
        counts["records"] += row.records
        counts["images"] += row.records
        counts["captions"] += row.captions
        counts["tags"] += row.tags
    for source, records in missing.items():
        sources.setdefault(source, {"records": 0, "images": 0, "captions": 0, "tags": 0})["records"] += records
    return sources


def unexpected(sources: Sources, expected: Mapping[str, ExpectedCounts], most: float) -> pl.LazyFrame:
    """Counts that differ from the expected ones by more than the share ``most`` (``FOUND_SCHEMA``).

    Captions and tags of records without an image are unknown: as many are expected as fit the records with one.
    """
    details = []
    for source, wanted in expected.items():
        counts = sources.get(source)
        if counts is None:
            details.append(f"{source}: expected, and not there; the sources are {', '.join(sources) or 'none'}")
            continue
        with_image = counts["images"] / counts["records"] if counts["records"] else 1.0
        for name, full in wanted.model_dump(exclude_none=True).items():
            share = 1.0 if name == "records" else with_image
            if _apart(counts[name], full * share) > most:
                of = "" if share == 1 else f" for the {share:.1%} of its records that have an image"
                details.append(f"{source}: {counts[name]} {name}, expected {full * share:.0f}{of}")
    return without_sample("set.unexpected_count", details)


@dataclass(frozen=True)
class Previous:
    """What an earlier audit counted; ``positives`` has the columns source, name (of a tag) and positives."""

    sources: Sources
    positives: pl.DataFrame


def read_previous(audit: Path) -> Previous:
    """Read the counts of an earlier audit.

    Raises:
        UserError: it is no audit's output, or one without these counts.
    """
    try:
        sources = read_verdict(audit).metrics["sources"]
        counts = pl.read_parquet(audit / TAG_COUNTS_FILE, columns=["source", "id", "positives"])
        return Previous(sources, _by_name(counts, read_tags(audit / TAG_STATUS_FILE)))
    except (OSError, KeyError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{audit} is no audit that can be compared with ({error}): audit that version again") from None


def drift(
    now: Sources, tally: Tally, tags: TagTable, previous: Previous, most: float
) -> tuple[list[pl.LazyFrame], dict[str, Any]]:
    """Counts and shares of tags that differ from the previous ones by more than the share ``most``.

    Two distributions of tags differ by their total variation distance: half the sum of what each tag's share changed.

    Returns:
        Failures (``FOUND_SCHEMA``), and for every source what changed, for the metrics.
    """
    positives = _by_name(tally.frame().select("source", "id", "positives"), tags)
    counted, moved = [], []
    metrics: dict[str, Any] = {}
    for source in [*now, *(s for s in previous.sources if s not in now)]:
        new, old = now.get(source, {}), previous.sources.get(source, {})
        changes = {name: _apart(new.get(name, 0), old.get(name, 0)) for name in COUNTS}
        counted += [f"{source}: {new.get(n, 0)} {n}, before {old.get(n, 0)}" for n in COUNTS if changes[n] > most]
        distance, changed = _moved(_of(positives, source), _of(previous.positives, source))
        if new and old and distance > most:
            moved.append(f"{source}: {distance:.1%} of the tags are others; most changed: {'; '.join(changed)}")
        metrics[source] = {name: round(share, 6) for name, share in (changes | {"tag_distance": distance}).items()}
        metrics[source]["most_changed"] = changed
    return [without_sample("set.drift_counts", counted), without_sample("set.drift_tags", moved)], metrics


def _apart(count: float, reference: float) -> float:
    """The difference as a share of ``reference``; of nothing, anything is all."""
    return abs(count - reference) / reference if reference else float(count > 0)


def _by_name(counts: pl.DataFrame, tags: TagTable) -> pl.DataFrame:
    """Positives by source and name of a tag: ids may mean other tags in another list."""
    names = pl.DataFrame({"name": tags.names}).with_row_index("id").cast({"id": pl.Int32})
    return counts.join(names, on="id").group_by("source", "name").agg(pl.col("positives").sum())


def _of(positives: pl.DataFrame, source: str) -> pl.DataFrame:
    own = positives.filter(pl.col("source") == source)
    total = max(int(own["positives"].sum()), 1)
    return own.select("name", share=pl.col("positives") / total)


def _moved(new: pl.DataFrame, old: pl.DataFrame) -> tuple[float, list[str]]:
    """Total variation distance of the shares of tags, and the tags that changed most, as text."""
    both = new.join(old, on="name", how="full", coalesce=True, suffix="_before").fill_null(0.0).sort("name")
    both = both.with_columns(change=(pl.col("share") - pl.col("share_before")).abs())
    most = both.filter(pl.col("change") > 0).sort("change", "name", descending=[True, False]).head(MOST_CHANGED)
    shares = most.select("name", "share_before", "share").iter_rows()
    return float(both["change"].sum()) / 2, [f"{name} from {a:.3%} to {b:.3%}" for name, a, b in shares]
