"""docs/checks.md lists every check that the audit makes, as the table of checks has it."""

from __future__ import annotations

from ramflow.audit.checks import KINDS
from tests.components.small import ROOT

HEAD = """# The checks of the audit

Ids are stable. An *error* above its limit makes the verdict a no and stops what follows, a *warning* is
shown, *info* is a fact. Every failing row is in `findings.parquet`. Limits are settings of `audit` (`ramflow
settings`).

| id | severity | what is found | what to do | quarantined | made |
| --- | --- | --- | --- | --- | --- |
"""
MADE = {
    None: "always",
    "images": "with `--data`",
    "expected": "with `audit.expected`",
    "benchmarks": "with `--benchmarks`",
    "previous": "with `--previous`",
    "thresholds": "with `--thresholds`",
    "embeddings": "with `--embeddings`",
}


def page() -> str:
    lines = []
    for kind in KINDS:
        made = MADE[kind.needs or ("images" if kind.id.startswith("images.") else None)]
        aside = "yes" if kind.unusable or kind.quarantines else ""
        cells = (f"`{kind.id}`", kind.severity, f"{kind.unit}s {kind.what}", kind.advice, aside, made)
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def test_the_page_is_true():
    assert (ROOT / "docs" / "checks.md").read_text(encoding="utf-8") == page(), "write page() to docs/checks.md"
