"""Tag and text audit of the annotation files, and pack's pass over them, against ``json.load`` of the same files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.figures import Figure, Options
from benchmarks.measure import Run, run_command, run_function, warm
from benchmarks.synthetic import Annotations, synthetic

AGAINST = "json.load"


def run(options: Options) -> list[Figure]:
    """Times and memory of both passes, in turns with json.load."""
    made = synthetic(options.work, options.scale)
    warm(*made.files)
    files = list(map(str, made.files))
    audits, packs, loads = [], [], []
    for _ in range(options.rounds):
        audits.append(audit(made, options.work / "annotations-audit"))
        packs.append(run_function("benchmarks.annotations:pack_pass", str(options.work / "annotations-pieces"), *files))
        loads.append(run_function("benchmarks.today:count", *files))
    records = loads[0].result["records"]
    assert packs[0].result["records"] == records
    what = f"of {records / 1e6:.3g} M records ({made.bytes / 1e9:.2f} GB of JSON)"
    return [
        *_figures("annotations.audit", f"tag and text audit {what}, every check", audits, loads),
        *_figures("annotations.pack", f"pack's pass over the annotations {what}", packs, loads),
    ]


def audit(made: Annotations, out: Path) -> Run:
    """``ramflow audit --annotations``, with two processes as its default is."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "ramflow.cli", "audit", "--annotations", *map(str, made.files)]
    return run_command([*command, "--tags", str(made.tags), "--out", str(out)])


def pack_pass(out: str, *files: str) -> dict[str, int]:
    """What pack does with the annotations before it looks for images: Parquet pieces of them, with two processes."""
    from ramflow.data.records import json_pass

    shutil.rmtree(out, ignore_errors=True)
    return {"records": sum(piece.records for piece in json_pass(files, Path(out), workers=2))}


def _figures(name: str, what: str, ours: list[Run], today: list[Run]) -> list[Figure]:
    return [
        Figure(f"{name}.seconds", what, "s", [r.wall for r in ours], [r.wall for r in today], AGAINST, at_least=1.0,
               note=f"processor seconds {max(r.cpu for r in ours):.1f} and {max(r.cpu for r in today):.1f}"),
        Figure(f"{name}.memory", f"{what}, memory", "GiB", [r.memory / 2**30 for r in ours],
               [r.memory / 2**30 for r in today], AGAINST, limit=1.5,
               note=f"with mapped files (PSS) {_gib(r.pss for r in ours)}, largest process "
                    f"{_gib(r.maxrss for r in ours)}; json.load {_gib(r.maxrss for r in today)}"),
    ]  # fmt: skip


def _gib(values: object) -> str:
    return f"{max(values) / 2**30:.2f} GiB"  # type: ignore[call-overload]
