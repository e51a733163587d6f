"""Progress of long steps: a live bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

LOG_INTERVAL_SECONDS = 10.0


def say(message: str) -> None:
    """Print one plain line on standard error, at once."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int | None, start: int = 0) -> Iterator[T]:
    """Yield ``items``, the first being number ``start``, and show how far: ``label 120/2000, 31.5/s, 1 min left``.

    ``total`` may be unknown (None).
    """
    return (_bar if sys.stderr.isatty() else _lines)(items, label, total, start)


def _bar(items: Iterable[T], label: str, total: int | None, start: int) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, completed=start, description=label)


class _Rate(ProgressColumn):
    """Items a second, lately."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "", style="progress.data.speed")


def _lines(items: Iterable[T], label: str, total: int | None, start: int) -> Iterator[T]:
    begun = last = time.monotonic()
    for done, item in enumerate(items, start):
        now = time.monotonic()
        if now - last >= LOG_INTERVAL_SECONDS:
            last = now
            rate = (done - start) / (now - begun)
            say(f"{label} {done}{'' if total is None else f'/{total}'}, {rate:.3g}/s{_left(total, done, rate)}")
        yield item


def _left(total: int | None, done: int, rate: float) -> str:
    if total is None or rate <= 0:
        return ""
    seconds = (total - done) / rate
    return f", {seconds:.0f} s left" if seconds < 100 else f", {seconds / 60:.0f} min left"
