"""What annotation files say of tag ids, streamed in pieces: how often each is used, and if captions speak of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ramflow.data.annotations import Piece, Record, decode, pieces, split_of
from ramflow.doctor.tag_ids import TagIds
from ramflow.progress import track
from ramflow.workers import map_in_order

Counts = npt.NDArray[np.int64]

SAMPLED = 64
"""About how many records of a piece (8 MiB) have their captions read for the names of their tags, evenly spread."""
CONTROL_SHIFT = 101
MAX_ID = 1 << 20
"""Ids beyond are counted, not told apart."""
SMALL = 64 << 20
"""Bytes of files that are not worth the start of other processes."""


@dataclass(frozen=True)
class Hits:
    """Of ``tries`` (tag, image) pairs by id, in how many a caption holds the tag's name.

    ``own``: the id read in the given list; ``full``: the name that the full list has at that id; ``control``: the name
    of an unrelated tag, for what chance gives.
    """

    tries: Counts
    own: Counts
    full: Counts
    control: Counts


@dataclass
class Tally:
    """Counts over some records."""

    images: int = 0
    captions: int = 0
    untagged: int = 0
    negative: int = 0
    beyond: int = 0
    uses: Counts = field(default_factory=lambda: np.zeros(0, np.int64))
    hits: list[Counts] = field(default_factory=list)


@dataclass(frozen=True)
class Annotations:
    """Counts over all files; ``uses[i]`` are images with tag id i."""

    paths: list[Path]
    images: int
    captions: int
    untagged: int
    negative: int
    beyond: int
    uses: Counts
    hits: Hits | None

    @property
    def tags_an_image(self) -> float:
        """Mean number of tags an image."""
        return float(self.uses.sum() / max(self.images, 1))


Names = Sequence[str | None]


@dataclass(frozen=True)
class _Task:
    piece: Piece
    own: Names
    full: Names


def read_annotations(files: list[str], tags: TagIds | None) -> Annotations:
    """Count over ``[SPLIT=]FILE``s; ``tags`` gives the names to look for in captions.

    Raises:
        UserError: a file is missing, not upstream's JSON list, damaged or cut off.
    """
    paths = [Path(split_of(file)[1]) for file in files]
    own: Names = [name.lower() for name in tags.names] if tags else []
    full: Names = [name and name.lower() for name in tags.by_full_id()] if tags else []
    tasks = (_Task(piece, own, full) for path in paths for piece in pieces(path))
    size = sum(path.stat().st_size for path in paths if path.is_file())
    workers = 1 if size < SMALL else min(os.cpu_count() or 1, 8)
    whole = Tally()
    for tally in track(map_in_order(tally_piece, tasks, workers, chunk=1), "doctor annotations, pieces", None):
        _join(whole, tally)
    hits = Hits(*whole.hits) if tags and whole.hits else None
    return Annotations(
        paths, whole.images, whole.captions, whole.untagged, whole.negative, whole.beyond, whole.uses, hits
    )


def tally_piece(task: _Task) -> Tally:
    """Count over one piece."""
    records = decode(task.piece)
    ids = np.fromiter(chain.from_iterable(record.union_label_id for record in records), np.int64)
    inside = ids[(ids >= 0) & (ids < MAX_ID)]
    return Tally(
        images=len(records),
        captions=sum(len(record.caption) for record in records),
        untagged=sum(not record.union_label_id for record in records),
        negative=int((ids < 0).sum()),
        beyond=int((ids >= MAX_ID).sum()),
        uses=np.bincount(inside).astype(np.int64),
        hits=_hits(records[:: max(1, len(records) // SAMPLED)], task.own, task.full) if task.own else [],
    )


def _hits(records: list[Record], own: Names, full: Names) -> list[Counts]:
    size = max(len(own), len(full))
    counts = [np.zeros(size, np.int64) for _ in range(4)]
    for record in records:
        text = " ".join(record.caption).lower()
        for tag in set(record.union_label_id):
            if 0 <= tag < size:
                control = own[(tag + CONTROL_SHIFT) % len(own)]
                counts[0][tag] += 1
                for count, name in zip(counts[1:], (_at(own, tag), _at(full, tag), control), strict=True):
                    count[tag] += name is not None and name in text
    return counts


def _at(names: Names, tag: int) -> str | None:
    return names[tag] if tag < len(names) else None


def _join(whole: Tally, part: Tally) -> None:
    for name in ("images", "captions", "untagged", "negative", "beyond"):
        setattr(whole, name, getattr(whole, name) + getattr(part, name))
    whole.uses = _sum(whole.uses, part.uses)
    whole.hits = [a + b for a, b in zip(whole.hits, part.hits, strict=True)] if whole.hits else part.hits


def _sum(a: Counts, b: Counts) -> Counts:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total
