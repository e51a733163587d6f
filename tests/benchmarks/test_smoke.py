"""The benchmarks run, at a size that takes seconds: their figures say nothing, their promises about the data hold."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from benchmarks import annotations
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Figure, Options, read, save, table
from benchmarks.measure import run_command, run_function
from benchmarks.synthetic import SOURCES, TAGS, TAGS_WITHOUT_IMAGE, synthetic

SCALE = 0.0005


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(tmp_path_factory.mktemp("work"), SCALE, rounds=1)


def records_of(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_files_are_as_json_dump_writes_them_and_the_same_every_time(options: Options, tmp_path: Path) -> None:
    made, again = synthetic(options.work, SCALE), synthetic(tmp_path, SCALE)
    for path, other in zip(made.files, again.files, strict=True):
        assert path.read_bytes() == json.dumps(records_of(path)).encode() == other.read_bytes()


def test_proportions(options: Options) -> None:
    made = synthetic(options.work, 0.005)
    seen: Counter[int] = Counter()
    for path, source in zip(made.files, SOURCES, strict=True):
        records = records_of(path)
        scale = len(records) / source.records
        assert len(records) == made.counts["records"][source.stem]
        assert sum(len(r["caption"]) for r in records) == pytest.approx(source.texts * scale, rel=0.15)
        assert sum(len(r["union_label_id"]) for r in records) == pytest.approx(source.tags * scale, rel=0.25)
        assert path.stat().st_size == pytest.approx(source.hosted_bytes * scale, rel=0.15)
        seen.update(tag for r in records for tag in r["union_label_id"])
    assert sum(seen[tag] == 0 for tag in range(TAGS)) == TAGS_WITHOUT_IMAGE


def test_memory_of_all_processes_is_counted() -> None:
    child = "import time; held = b'1' * (200 << 20); time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert run_command([sys.executable, "-c", parent]).memory > 200 << 20


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"nowhere\.json"):
        run_function("benchmarks.today:count", "nowhere.json")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_runs(name: str, options: Options, tmp_path: Path) -> None:
    figures = importlib.import_module(f"benchmarks.{name}").run(options)
    save(figures, options, tmp_path / "results.json")
    records = read(tmp_path / "results.json")
    assert list(records) == [figure.name for figure in figures]
    assert all(figure.name.startswith(f"{name}.") for figure in figures)
    for figure in figures:
        if figure.name == "training_step.monitors":
            continue  # a difference of two times, which at this size is noise of either sign
        least = 0 if name == "instabilities" else 1e-12  # nothing skipped of clean curves is a good figure
        assert all(value >= least for value in (*figure.ours, *figure.baseline)), figure.name
    assert table(records).count("\n") == len(figures) + 1


def test_the_audit_finds_what_was_planted(options: Options, tmp_path: Path) -> None:
    made = synthetic(options.work, SCALE)
    annotations.audit(made, tmp_path / "audit")
    findings = pl.read_parquet(tmp_path / "audit" / "findings.parquet")
    found = dict(findings["check"].value_counts().iter_rows())
    assert {check: found.get(check, 0) for check in made.counts["planted"]} == made.counts["planted"]
    assert found["tags.missing"] == TAGS_WITHOUT_IMAGE


def test_a_missed_target_is_said() -> None:
    slow = Figure("a.b", "what", "s", [2.0, 2.0], [1.0, 1.0], "json.load", at_least=1.0)
    assert slow.ratios == [0.5, 0.5] and slow.met is False
    assert Figure("a.b", "what", "MB", [2.0], limit=25.0).met is True
    assert Figure("a.b", "what", "MB/s", [2.0], [1.0], higher_is_better=True, at_least=2.0).met is True
