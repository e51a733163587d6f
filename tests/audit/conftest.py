"""An audit of any packed dataset, with what it wrote read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ramflow.audit.stage import run
from ramflow.settings import AuditSettings
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Check, Verdict


@dataclass
class Audited:
    """What an audit said and wrote."""

    verdict: Verdict
    findings: pl.DataFrame
    quarantine: pl.DataFrame
    table: TagTable

    def check(self, name: str) -> Check:
        """The one check of this id."""
        [found] = [c for c in self.verdict.checks if c.id == name]
        return found

    def rows(self, name: str) -> list[tuple[str | None, str]]:
        """(key, detail) of all findings of a check."""
        return self.findings.filter(pl.col("check") == name).select("key", "detail").rows()

    def failed(self) -> set[str]:
        """Ids of the checks that did not pass, but for the tag of the list that no image has."""
        return {c.id for c in self.verdict.checks if not c.passed} - {"tags.missing"}


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., Audited]:
    """``audit(data, setting=value, ...)``: by default with limits that the 24 records keep."""

    def run_audit(data: Path, **settings: object) -> Audited:
        out = tmp_path / "audit"
        out.mkdir(exist_ok=True)
        chosen = {"workers": 1, "rare_below": 2, "max_missing_tags_share": 0.2, "max_unusable_share": 0.5} | settings
        verdict = run(AuditSettings(**chosen), data=data, out=out)
        return Audited(
            verdict,
            pl.read_parquet(out / "findings.parquet"),
            pl.read_parquet(out / "quarantine.parquet"),
            read_tags(out / "tag_status.csv"),
        )

    return run_audit
