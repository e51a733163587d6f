"""What a run writes of itself: ``metrics.jsonl`` and ``events.jsonl``, the same in every run, and what holds times.

The first two are part of the output. ``speed.jsonl`` and ``tensorboard/`` hold times and live in a folder of their own.
A row is one write of one whole line. See ``docs/monitors.md`` for every key.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramflow.errors import UserError
from ramflow.progress import say

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
SPEED_FILE = "speed.jsonl"
TENSORBOARD = "tensorboard"

Row = dict[str, Any]


class Logs:
    """The logs of process 0."""

    def __init__(self, out: Path, logs: Path | None, steps_per_epoch: int) -> None:
        """Write below ``out``, and to ``logs`` what holds times (None: nowhere).

        Raises:
            UserError: there is no place to write to.
        """
        self.out, self.logs, self.steps_per_epoch = out, logs, steps_per_epoch
        self._since, self._kept = 0, list[Row]()
        self._board: SummaryWriter | None = None
        try:
            for path in self.files():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            if logs is not None:
                logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"train: the logs cannot be written: {error}") from None

    def row(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl; ``kind`` is train or validation, a number that is not finite becomes null."""
        row = self._row(step, {"kind": kind, **values})
        _append(self.out / METRICS_FILE, row)
        self._show(row)

    def event(self, step: int, name: str, detail: str | Mapping[str, Any]) -> None:
        """A row of events.jsonl, and a line on the console."""
        row = self._row(step, {"event": name, "detail": detail if isinstance(detail, str) else dict(detail)})
        _append(self.out / EVENTS_FILE, row)
        say(f"train: step {step}: {name}: {_sentence(row['detail'])}")
        if self.logs is not None:
            self._writer().add_text(f"event/{name}", _sentence(row["detail"]), step)

    def speed(self, step: int, values: Mapping[str, Any]) -> None:
        """A row of speed.jsonl."""
        if self.logs is None:
            return
        row = self._row(step, values)
        _append(self.logs / SPEED_FILE, row)
        self._show({"kind": "speed", **row})

    def files(self) -> list[Path]:
        """What a checkpoint keeps a copy of."""
        return [self.out / METRICS_FILE, self.out / EVENTS_FILE]

    def restore(self, kept: Mapping[str, Path], step: int) -> None:
        """Go on at ``step``: what was written since is forgotten.

        Args:
            kept: copies of :meth:`files` by name, of a checkpoint; without one, empty: the file starts anew.
            step: first step that will be written again.
        """
        assert self._board is None, "restore comes first"
        for path in self.files():
            if path.name in kept:
                shutil.copyfile(kept[path.name], path)
            else:
                path.write_bytes(b"")
        self._since, self._kept = step, self._lines()
        if self.logs is not None and (path := self.logs / SPEED_FILE).exists():
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(line for line in lines if (row := _read(line)) and row["step"] < step))

    def close(self) -> None:
        """End TensorBoard's thread; what was written is on disk."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _row(self, step: int, values: Mapping[str, Any]) -> Row:
        return {"step": step, "epoch": round(step / self.steps_per_epoch, 4), **_finite(values)}

    def _show(self, row: Row) -> None:
        if self.logs is not None:
            writer = self._writer()
            for name, value in _numbers(row, f"{row['kind']}/"):
                writer.add_scalar(name, value, row["step"])

    def _writer(self) -> SummaryWriter:
        """TensorBoard's writer; rows at or after the step that the run goes on from are hidden, and shown anew.

        A validation is logged at the step after it, so the rows of a checkpoint can reach its own step.
        """
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            assert self.logs is not None
            folder = self.logs / TENSORBOARD
            since = self._since if any(folder.glob("events.out.*")) else 0
            self._board = SummaryWriter(str(folder), purge_step=since)
            for row in self._kept:
                if row["step"] >= since:
                    self._show(row)
        return self._board

    def _lines(self) -> list[Row]:
        rows = map(_read, (self.out / METRICS_FILE).read_bytes().splitlines())
        return [row for row in rows if row]


class NoLogs:
    """The same for the other processes, which write nothing."""

    def row(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def event(self, step: int, name: str, detail: str | Mapping[str, Any]) -> None:
        """Nothing."""

    def speed(self, step: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def files(self) -> list[Path]:
        """None."""
        return []

    def restore(self, kept: Mapping[str, Path], step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _append(path: Path, row: Row) -> None:
    """Add a line in one write; what a full disk cut off is taken back."""
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError("no space left")
    except OSError as error:
        raise UserError(
            f"train: {path} cannot be written ({error.strerror or error}): make room, then the same command goes on"
        ) from None


def _read(line: bytes) -> Row | None:
    """A row, or None of a line that was cut off."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def _finite(value: Any) -> Any:
    """The same as JSON has it: null where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Every number of a row with its name, nested ones too, without the step."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and key != "step":
            yield f"{prefix}{key}", float(value)


def _sentence(detail: str | Mapping[str, Any]) -> str:
    """What an event says, in a line."""
    if isinstance(detail, str):
        return detail
    if detail.get("sentence"):
        return str(detail["sentence"])
    return ", ".join(f"{key} {value}" for key, value in detail.items())
