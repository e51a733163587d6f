"""What happened while training, as the page tells it: marks on the curves, and a table with the images of a skip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault
from ramflow.report.charts import Mark
from ramflow.report.gallery import thumbnail
from ramflow.report.text import number, rows

Rows = list[dict[str, Any]]

MOST_EVENTS = 50
MOST_WITH_PICTURES = 4
"""Skips whose images are shown."""
SIDE = 144
"""Pixels of the longer side of such an image: twice its size on the page."""
FINDINGS = ("plateau", "oscillation", "drift")
KINDS = {"skip": "step left out", "rewind": "back to a checkpoint", "finding": "finding"}


@dataclass(frozen=True)
class Thumbnail:
    """An image of a batch."""

    key: str
    image: str
    width: int
    height: int


@dataclass(frozen=True)
class Event:
    """A row of the table: what happened, in words, and the images of the batch where it is a skip."""

    step: str
    name: str
    text: str
    figures: str
    keys: list[str]
    pictures: list[Thumbnail]


def marks_of(events: Rows) -> list[Mark]:
    """Skips, rewinds and findings, to be drawn on curves over the steps."""
    found = []
    for event in events:
        name = str(event.get("event"))
        kind = "finding" if name in FINDINGS else name
        if kind in KINDS and isinstance(event.get("step"), int):
            found.append(Mark(event["step"], kind, f"{name}: {_words(event.get('detail', ''))}"))
    return found


def kinds_of(marks: Sequence[Mark]) -> list[tuple[str, str]]:
    """Class and words of the kinds of marks that there are, with their number."""
    counts = {kind: sum(mark.kind == kind for mark in marks) for kind in KINDS}
    return [(kind, f"{words} ({number(counts[kind])})") for kind, words in KINDS.items() if counts[kind]]


def event_table(events: Rows, dataset: Dataset, thumbnails: int) -> list[Event]:
    """The first events; of some skips, the first ``thumbnails`` images that can still be read."""
    table, with_pictures = [], 0
    for event in events[:MOST_EVENTS]:
        detail = event.get("detail", "")
        keys = [str(key) for key in detail.get("samples", [])] if isinstance(detail, dict) else []
        show = bool(keys) and with_pictures < MOST_WITH_PICTURES
        with_pictures += show
        pictures = _pictures(dataset, keys[:thumbnails]) if show and thumbnails else []
        name = str(event.get("event", ""))
        table.append(Event(number(event.get("step")), name, _words(detail), _figures(detail), keys, pictures))
    return table


def _words(detail: object) -> str:
    if not isinstance(detail, dict):
        return str(detail)
    if detail.get("sentence"):
        return str(detail["sentence"])
    return ", ".join(f"{key} {value}" for key, value in rows(detail) if key != "samples")


def _figures(detail: object) -> str:
    """Each value of a skip beside its limit."""
    if not isinstance(detail, dict) or not isinstance(values := detail.get("values"), Mapping):
        return ""
    limits = detail.get("limits") or {}
    return "; ".join(
        f"{name} {number(value)}" + (f", limit {number(limits[name])}" if limits.get(name) is not None else "")
        for name, value in values.items()
    )


def _pictures(dataset: Dataset, keys: Sequence[str]) -> list[Thumbnail]:
    places = dataset.scan().filter(pl.col("image_path").is_in(list(keys))).select("sample", "image_path").collect()
    samples = {path: int(sample) for sample, path in places.iter_rows()}
    found = []
    for key in keys:
        if key not in samples:
            continue
        try:
            found.append(Thumbnail(key, *thumbnail(dataset, samples[key], SIDE)))
        except ImageFault:
            continue
    return found
