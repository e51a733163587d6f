"""Logs of training: the public code's console output and log.txt, mixed with anything, and ramflow's metrics.jsonl.

The public code prints a row every 50 steps, ``Train Epoch: [0]  [  50/9303]  eta: ...  lr: 0.000002  loss_tag:
812.4410  loss_dis: 0.2954  loss_alignment: 88.1021  time: ...``, of the losses of that one batch; ``log.txt`` has one
JSON object an epoch, ``{"train_lr": "0.000", "train_loss_tag": "231.100", ..., "epoch": 0}``, of means over it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ramflow.errors import UserError

METRICS_FILE = "metrics.jsonl"
SNIFFED = 1 << 16
ROUNDING = 6e-4

ROW = re.compile(r"Train Epoch: \[(\d+)\]\s+\[\s*(\d+)/(\d+)\]\s(.*)")
VALUE = re.compile(r"\b(lr|loss_\w+): (-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))(?=\s)")
AVERAGED = re.compile(r"Averaged stats: (.*)")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
OUR_NAMES = {"loss_distillation": "loss_dis", "learning_rate": "lr"}


@dataclass(frozen=True)
class Row:
    """The figures of one step: ``step`` of ``steps`` in an epoch, both from 0 as the public code prints them."""

    epoch: int
    step: int
    steps: int
    values: dict[str, float]


@dataclass
class Run:
    """One run of training: rows in order, and the mean figures of each epoch."""

    rows: list[Row] = field(default_factory=list)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)

    def series(self, name: str) -> list[float]:
        """A figure over the rows that have it."""
        return [row.values[name] for row in self.rows if name in row.values]

    def means(self, name: str) -> list[float]:
        """A figure over the epochs that have it."""
        return [values[name] for _, values in sorted(self.epochs.items()) if name in values]


@dataclass
class TrainingLog:
    """What a log says. ``runs`` holds at least one run; ``samples``, ``world`` are images and processes if printed."""

    path: Path
    writer: Literal["public", "ramflow"] = "public"
    runs: list[Run] = field(default_factory=list)
    samples: int | None = None
    world: int | None = None
    created_model: bool = False
    loaded_backbone: bool = False
    fine_tuning: bool = False
    resumed: bool = False
    damaged_lines: int = 0

    @property
    def last(self) -> Run:
        """The run that the diagnoses are about: the last."""
        return self.runs[-1]


def read_log(path: Path) -> TrainingLog:
    """Read a log, or the ``metrics.jsonl`` in a folder that ramflow's train stage wrote.

    Raises:
        UserError: no such file, not text, or nothing in it is a row of training.
    """
    place = path / METRICS_FILE if path.is_dir() else path
    if not place.is_file():
        raise UserError(f"no such log: {place}")
    with place.open("rb") as file:
        if b"\0" in file.read(SNIFFED):
            raise UserError(f"{place} is not a log: it is binary, give the console output or log.txt as UTF-8 text")
    log = TrainingLog(place)
    rows, means = _Runs(), _Runs()
    with place.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            for part in ESCAPES.sub("", line).split("\r"):
                _take(part, log, rows, means)
    count = max(len(rows.runs), len(means.runs))
    log.runs = [Run(rows.of(i - count), means.means_of(i - count)) for i in range(count)]
    if not log.runs:
        raise UserError(
            f"{place} is not a log of training: no row 'Train Epoch: [0]  [ 0/...]' and no JSON of an epoch"
        )
    return log


class _Runs:
    """Rows cut into runs: a run starts anew at epoch 0, and a resumed one goes on after the last whole epoch."""

    def __init__(self) -> None:
        self.runs: list[list[Row]] = []

    def add(self, row: Row) -> None:
        """Add a row of the console; a place that was there before starts a run anew, or goes back in it."""
        last = self.runs[-1][-1] if self.runs else None
        if last is None or ((row.epoch, row.step) <= (last.epoch, last.step) and row.epoch == 0):
            self.runs.append([])
        elif (row.epoch, row.step) <= (last.epoch, last.step):
            self.runs[-1] = [r for r in self.runs[-1] if (r.epoch, r.step) < (row.epoch, row.step)]
        self.runs[-1].append(row)

    def add_mean(self, row: Row) -> None:
        """Add an epoch of log.txt, unless the console has said the same to more digits."""
        known = [r for run in self.runs for r in run if r.epoch == row.epoch]
        if not any(_same(row.values, r.values) for r in known):
            self.add(row)

    def of(self, index: int) -> list[Row]:
        """The run at a negative index; empty where there are fewer."""
        return self.runs[index] if -index <= len(self.runs) else []

    def means_of(self, index: int) -> dict[int, dict[str, float]]:
        """Losses by epoch of the run at a negative index."""
        return {row.epoch: row.values for row in self.of(index)}


def _same(rounded: dict[str, float], values: dict[str, float]) -> bool:
    return all(abs(values.get(name, math.inf) - value) < ROUNDING for name, value in rounded.items())


def _take(line: str, log: TrainingLog, rows: _Runs, means: _Runs) -> None:
    if row := ROW.search(line):
        values = _values(row[4])
        if values and ("time: " in row[4]):  # what ends before is cut off
            rows.add(Row(int(row[1]), int(row[2]), int(row[3]), values))
        else:
            log.damaged_lines += 1
    elif "{" in line:
        _take_json(line[line.index("{") :], log, rows, means)
    elif averaged := AVERAGED.search(line):
        if rows.runs and (values := _values(averaged[1] + " ")):
            means.add(Row(rows.runs[-1][-1].epoch, 0, 1, values))
    else:
        _take_words(line, log)


def _values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in VALUE.findall(text)}


def _take_json(text: str, log: TrainingLog, rows: _Runs, means: _Runs) -> None:
    if not re.match(r'\{"(?:train_|epoch|step)', text):
        return
    try:
        content: dict[str, Any] = json.loads(text)
        epoch = int(content["epoch"])
        if "kind" in content:
            log.writer = "ramflow"
            if content["kind"] == "train":
                rows.add(Row(epoch, int(content["step"]), 0, _numbers(content)))
        else:
            public = {key.removeprefix("train_"): v for key, v in content.items() if key.startswith("train_")}
            means.add_mean(Row(epoch, 0, 1, _numbers(public)))
    except (ValueError, KeyError, TypeError):
        log.damaged_lines += 1


def _numbers(content: dict[str, Any]) -> dict[str, float]:
    found = {OUR_NAMES.get(key, key): value for key, value in content.items() if key not in ("epoch", "step", "kind")}
    return {key: float(v) if v is not None else math.nan for key, v in found.items() if not isinstance(v, (dict, list))}


def _take_words(line: str, log: TrainingLog) -> None:
    if found := re.search(r"number of training samples: (\d+)", line):
        log.samples = int(found[1])
    elif found := re.search(r"distributed init \(rank \d+, wor(?:l)?d (\d+)\)", line):
        log.world = int(found[1])
    log.created_model |= "Creating RAM model" in line
    log.loaded_backbone |= "Load Vision Backbone" in line
    log.fine_tuning |= line.startswith("load from:") or "load checkpoint from" in line
    log.resumed |= "resume checkpoint from" in line
