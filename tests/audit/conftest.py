"""An audit of any packed dataset, or of annotation files alone, with what it wrote read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from ramflow.audit.stage import run, run_annotations
from ramflow.settings import AuditSettings
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Check, Verdict

LOOKS = ("set.near_duplicate", "set.near_leakage")
"""A red shape and a blue one are the same shade of grey; that honest pictures pass is seen in test_likeness.py."""
LIMITS: dict[str, Any] = {
    "workers": 1, "rare_below": 2, "max_missing_tags_share": 0.2, "max_unusable_share": 0.5,
}  # fmt: skip
"""Limits that the 24 records keep."""


@dataclass
class Audited:
    """What an audit said and wrote."""

    verdict: Verdict
    findings: pl.DataFrame
    quarantine: pl.DataFrame | None
    counts: pl.DataFrame
    table: TagTable

    def check(self, name: str) -> Check:
        """The one check of this id."""
        [found] = [c for c in self.verdict.checks if c.id == name]
        return found

    def rows(self, name: str) -> list[tuple[str | None, str]]:
        """(key, detail) of all findings of a check."""
        return self.findings.filter(pl.col("check") == name).select("key", "detail").rows()

    def failed(self) -> set[str]:
        """Ids of the checks that did not pass, but for the tag that no image has, and the shapes that look alike."""
        return {c.id for c in self.verdict.checks if not c.passed} - {"tags.missing", *LOOKS}


def read_back(verdict: Verdict, out: Path) -> Audited:
    quarantine = out / "quarantine.parquet"
    return Audited(
        verdict,
        pl.read_parquet(out / "findings.parquet"),
        pl.read_parquet(quarantine) if quarantine.exists() else None,
        pl.read_parquet(out / "tag_counts.parquet"),
        read_tags(out / "tag_status.csv"),
    )


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., Audited]:
    """``audit(data, setting=value, inputs={...})``: by default with limits that the 24 records keep."""

    def run_audit(data: Path, *, inputs: dict[str, Any] | None = None, **settings: object) -> Audited:
        out = tmp_path / "audit"
        out.mkdir(exist_ok=True)
        return read_back(run(AuditSettings(**(LIMITS | settings)), data=data, out=out, **(inputs or {})), out)

    return run_audit


@pytest.fixture
def audit_files(tmp_path: Path, tiny_tags: Path) -> Callable[..., Audited]:
    """``audit_files(records)`` of one file ``set.json``, or ``audit_files({"train=a.json": records, ...})``."""

    def run_audit(
        files: list[Any] | dict[str, list[Any]], *, tags: Path = tiny_tags, inputs: dict[str, Any] | None = None,
        **settings: object,
    ) -> Audited:  # fmt: skip
        out = tmp_path / "audit"
        out.mkdir(exist_ok=True)
        named = files if isinstance(files, dict) else {"set.json": files}
        given = []
        for name, records in named.items():
            split, separator, file = name.rpartition("=")
            (tmp_path / file).write_text(json.dumps(records), encoding="utf-8", errors="surrogatepass")
            given.append(f"{split}{separator}{tmp_path / file}")
        chosen = AuditSettings(**(LIMITS | settings))
        return read_back(run_annotations(chosen, tags=tags, out=out, annotations=given, **(inputs or {})), out)

    return run_audit


def photo(seed: int, side: int = 64) -> Image.Image:
    """A picture with as many frequencies as a photograph; each seed's looks like no other's."""
    grid = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
