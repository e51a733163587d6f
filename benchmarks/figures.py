"""Figures: what was measured on both sides, their ratio, the README's table and ``results.json``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, median_and_spread

RESULTS = ROOT / "benchmarks" / "results.json"


@dataclass(frozen=True)
class Options:
    """How all benchmarks are run."""

    work: Path
    """Folder of generated data, kept between runs."""
    scale: float
    """Share of the 4M set's size; 1 gives the README's figures."""
    rounds: int
    """Measurements of each side, ours and the baseline's taking turns."""


@dataclass(frozen=True)
class Figure:
    """One line of the table. The two sides were measured in turns, one value a round."""

    name: str
    what: str
    unit: str
    ours: Sequence[float]
    baseline: Sequence[float] = ()
    """Empty where there is nothing to compare with: then only ``limit`` counts."""
    against: str = ""
    """What the baseline is."""
    higher_is_better: bool = False
    at_least: float | None = None
    """Target of the ratio."""
    limit: float | None = None
    """Target of our own value: not worse than this."""
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times better than the baseline, a round."""
        pairs = zip(self.ours, self.baseline, strict=False)
        return [o / b if self.higher_is_better else b / o for o, b in pairs]

    @property
    def met(self) -> bool | None:
        """Whether the targets are reached; nothing where there are none."""
        if self.at_least is None and self.limit is None:
            return None
        ours = median_and_spread(self.ours)[0]
        good = self.at_least is None or median_and_spread(self.ratios)[0] >= self.at_least
        if self.limit is not None:
            good = good and (ours >= self.limit if self.higher_is_better else ours <= self.limit)
        return good

    def record(self, options: Options) -> dict[str, Any]:
        """The figure as ``results.json`` holds it."""
        result: dict[str, Any] = {"what": self.what, "unit": self.unit}
        for side, values in (("ours", self.ours), ("baseline", self.baseline), ("ratio", self.ratios)):
            if values:
                middle, spread = median_and_spread(values)
                rounds = [_rounded(v) for v in values]
                result[side] = {"median": _rounded(middle), "spread": round(spread, 3), "rounds": rounds}
        target = {"at_least": self.at_least, "limit": self.limit}
        result |= {"against": self.against, "higher_is_better": self.higher_is_better, **target, "met": self.met}
        return result | {"note": self.note, "scale": options.scale, **_where_and_when()}


HEADER = "| | unit | ramflow | today | ratio | target |\n| --- | --- | --- | --- | --- | --- |"


def row(record: dict[str, Any]) -> str:
    """A line of the README's table."""
    targets = []
    if record["at_least"] is not None:
        targets.append(f"{record['at_least']:g} times")
    if record["limit"] is not None:
        targets.append(f"{'at least' if record['higher_is_better'] else 'under'} {record['limit']:g}")
    today = f"{_side(record['baseline'])} ({record['against']})" if "baseline" in record else "-"
    ratio = f"{record['ratio']['median']:.3g}" if "ratio" in record else "-"
    met = {True: "", False: ": missed", None: ""}[record["met"]]
    cells = (record["what"], record["unit"], _side(record["ours"]), today, ratio, (", ".join(targets) or "-") + met)
    return "| " + " | ".join(cells) + " |"


def _side(values: dict[str, Any]) -> str:
    spread = f" ± {values['spread']:.0%}" if values["spread"] >= 0.005 else ""
    return f"{values['median']:,.4g}{spread}"


def save(figures: Sequence[Figure], options: Options, path: Path = RESULTS) -> None:
    """Put figures into ``results.json``, in place of those of the same names."""
    content = read(path)
    content |= {figure.name: figure.record(options) for figure in figures}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The figures of ``results.json`` by name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(records: dict[str, dict[str, Any]]) -> str:
    """The README's table."""
    return "\n".join([HEADER, *(row(record) for record in records.values())])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _where_and_when() -> dict[str, str]:
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    return {
        "machine": machine(),
        "commit": (commit or "unknown") + ("-dirty" if dirty else ""),
        "date": datetime.now(UTC).date().isoformat(),
    }


def machine() -> str:
    """Processor, cores and memory in a few words."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores of {cpu}, {gigabytes:.0f} GiB, Python {platform.python_version()}"
