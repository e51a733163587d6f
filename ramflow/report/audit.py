"""What the page shows of the audit: images by split, and how often each tag occurs."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from ramflow.data.dataset import SPLITS
from ramflow.report import charts
from ramflow.report.artifacts import Run, reading
from ramflow.report.text import plural
from ramflow.tags import TagTable, read_tags

TAGS_FILE = "tag_status.csv"
QUARANTINE_FILE = "quarantine.parquet"
MOST_COMMON = 5


@dataclass(frozen=True)
class Split:
    """Counts of one split: records with an image, without one, set aside by the audit, and left to use."""

    name: str
    packed: int
    missing: int
    quarantined: int

    @property
    def used(self) -> int:
        """Images that training or scoring sees."""
        return self.packed - self.quarantined


@dataclass(frozen=True)
class AuditPart:
    """The audit as the page shows it; ``common`` holds the names and counts of the most frequent tags."""

    splits: list[Split]
    tags: TagTable
    present: int
    rare: int
    rare_below: int
    common: list[tuple[str, int]]
    chart: Markup

    @property
    def missing(self) -> list[str]:
        """Tags without an image to learn from."""
        return self.tags.missing

    @property
    def dropped(self) -> list[str]:
        """Tags that are no longer used."""
        return self.tags.dropped_names

    @property
    def images(self) -> int:
        """Images that are left to use, over all splits."""
        return sum(split.used for split in self.splits)

    @property
    def set_aside(self) -> int:
        """Images in quarantine, over all splits."""
        return sum(split.quarantined for split in self.splits)


def audit_part(run: Run) -> AuditPart:
    """Read the audit's artifacts.

    Raises:
        UserError: one is damaged.
    """
    tags = read_tags(run.paths["audit"] / TAGS_FILE)
    with reading(run.paths["audit"] / TAGS_FILE):
        if len(tags.counts) != len(tags) or len(tags.status) != len(tags):
            raise ValueError("count or status is not filled in for every tag")
    rare_below = int(run.verdicts["audit"].settings.get("rare_below", 1))
    used = [(n, c) for n, c, s in zip(tags.names, tags.counts, tags.status, strict=True) if s != "dropped"]
    common = sorted(used, key=lambda pair: -pair[1])[:MOST_COMMON]
    present, rare = tags.status.count("present"), tags.status.count("rare")
    about = (
        f"Images a tag in the train split, sorted: {plural(present, 'tag')} with {rare_below} images or more, "
        f"{rare:,} rare, {len(tags.missing):,} without an image; "
        f"the most frequent is {common[0][0]} with {common[0][1]:,}."
    )
    chart = charts.rank_chart([count for _, count in used], rare_below, about)
    return AuditPart(_splits(run), tags, present, rare, rare_below, common, chart)


def _splits(run: Run) -> list[Split]:
    quarantine = run.table("audit", QUARANTINE_FILE, ["sample", "split"]).unique()
    packed: dict[str, int] = run.dataset.info["splits"]
    missing, aside = _by_split(run.dataset.missing), _by_split(quarantine)
    found = [s for s in SPLITS if packed.get(s) or missing.get(s)]
    return [Split(s, packed.get(s, 0), missing.get(s, 0), aside.get(s, 0)) for s in found]


def _by_split(table: pl.DataFrame) -> dict[str, int]:
    return dict(table.group_by("split").len().iter_rows())
