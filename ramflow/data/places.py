"""Which image belongs to each record by its path: arrays over all records, filled container by container."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.data.annotations import OUTSIDE
from ramflow.data.image_index import Indexed
from ramflow.data.joins import join_by_key
from ramflow.data.sources import NOT_THERE, Root
from ramflow.progress import track
from ramflow.workers import check_stopped, map_in_order

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOT_FOUND = NOT_THERE[errno.ENOENT]
NOT_REGULAR = "not a regular file"
LEAVES = "the path is absolute or leaves the folder of images"
NUL = "the path holds a NUL character"
SEVERAL_SIZES = "ambiguous: files of different sizes have this path"
SEVERAL_IMAGES = "ambiguous: several images have one of its captions"
SEVERAL_RECORDS = "ambiguous: several records have the caption of its image"
NO_CAPTION = "no image has one of its captions"
REASONS = (
    "", *NOT_THERE.values(), NOT_REGULAR, LEAVES, NUL, SEVERAL_SIZES, SEVERAL_IMAGES, SEVERAL_RECORDS, NO_CAPTION
)  # fmt: skip
"""Why a record has no image; kept as its number here."""

STATS_AT_A_TIME = 256


class Places:
    """Where the image of each record is, or why there is none: 29 bytes a record.

    ``size`` (-1: none), ``container``, ``offset`` (in a tar), ``image`` (number in the index, -1: the record's own path
    below the container), ``reason`` (number in ``REASONS``).
    """

    def __init__(self, records: int) -> None:
        self.size = np.full(records, -1, dtype=np.int64)
        self.container = np.full(records, -1, dtype=np.int32)
        self.offset = np.zeros(records, dtype=np.int64)
        self.image = np.full(records, -1, dtype=np.int64)
        self.reason = np.zeros(records, dtype=np.uint8)

    @property
    def found(self) -> Bools:
        """True for records that have an image."""
        return self.size >= 0

    def refuse(self, rows: npt.NDArray[np.integer] | Bools | slice, why: str) -> None:
        """These rows have no image, whatever else is found."""
        self.size[rows] = -1
        self.reason[rows] = REASONS.index(why)

    def take(self, container: int, rows: Ints, sizes: Ints, offsets: Ints | None = None) -> None:
        """Found under its own path in one more container, each row once: the first container of several is taken.

        Another size than before is a refusal. So is any row that was refused for good.
        """
        old = self.size[rows]
        other = (old >= 0) & (old != sizes)
        new = (old < 0) & ~np.isin(self.reason[rows], FOR_GOOD)
        self.size[rows[new]] = sizes[new]
        self.container[rows[new]] = container
        self.offset[rows[new]] = 0 if offsets is None else offsets[new]
        self.reason[rows[new]] = 0
        self.refuse(rows[other], SEVERAL_SIZES)


FOR_GOOD = [REASONS.index(why) for why in (LEAVES, NUL, SEVERAL_SIZES)]


@dataclass(frozen=True)
class _Looked:
    """What one folder has of the records of one piece: sizes (-1: none), and numbers of reasons."""

    sizes: Ints
    reasons: npt.NDArray[np.uint8]


def refuse_bad_paths(places: Places, pieces: Sequence[Path]) -> None:
    """Refuse the records (Parquet files) whose path is absolute, leaves its folder or holds a NUL."""
    path = pl.col("image_path")
    for bad, why in ((path.str.contains(OUTSIDE), LEAVES), (path.str.contains("\0", literal=True), NUL)):
        rows = scan_records(pieces).filter(bad).select("row").collect(engine="streaming")
        places.refuse(rows["row"].to_numpy(), why)


def find_by_path(places: Places, pieces: Sequence[Path], indexed: Indexed) -> None:
    """Look for every record under its own path in the containers of the roots that are matched by path.

    In memory, besides ``places``: 28 bytes a record that is found in the index, and a part of the join
    (``join_by_key``). (Measured: 0.5 GiB for 3.87 million records and 2.8 million images in tars.)

    Args:
        places: filled in; of containers with the same path and size, the first one's image is taken.
        pieces: Parquet files of the records.
        indexed: the images that are in tars and behind s3:// prefixes.
    """
    key = pl.col("image_path").str.strip_prefix("./")
    right = indexed.scan("path").select("container", "size", "offset", key="name")
    listed = join_by_key(scan_records(pieces).select("row", key=key), right, indexed.images)
    by_path = [(n, c, indexed.roots[c.root]) for n, c in enumerate(indexed.containers)]
    by_path = [(n, c, root) for n, c, root in by_path if root.match == "path"]
    for number, container, root in by_path:
        if container.tar or root.remote:
            rows = listed.filter(pl.col("container") == number)
            places.take(number, *(rows[name].to_numpy() for name in ("row", "size", "offset")))
        else:
            _look_in_folder(places, number, pieces, root, indexed.workers)
    if by_path:
        places.reason[~places.found & (places.reason == 0)] = REASONS.index(NOT_FOUND)


def scan_records(pieces: Sequence[Path]) -> pl.LazyFrame:
    """All records with their number in the column ``row``."""
    return pl.scan_parquet(list(pieces)).with_row_index("row").cast({"row": pl.Int64})


def _look_in_folder(places: Places, number: int, pieces: Sequence[Path], root: Root, workers: int) -> None:
    tasks = [(piece, root.address) for piece in pieces]
    looks = map_in_order(_look, tasks, min(workers, len(tasks)), chunk=1)
    first = 0
    for looked in track(looks, f"pack: {root.address}: files of annotations", len(pieces)):
        rows = np.arange(first, first + len(looked.sizes))
        there = looked.sizes >= 0
        places.take(number, rows[there], looked.sizes[there])
        open_ = rows[~there & (places.reason[rows] == 0) & ~places.found[rows]]
        places.reason[open_] = looked.reasons[open_ - first]
        first += len(rows)


def _look(task: tuple[Path, str]) -> _Looked:
    piece, folder = task
    paths = pl.read_parquet(piece, columns=["image_path"])["image_path"]
    sizes, reasons = np.full(len(paths), -1, dtype=np.int64), np.zeros(len(paths), dtype=np.uint8)
    for row, path in enumerate(paths):
        if row % STATS_AT_A_TIME == 0:
            check_stopped()
        size, why = _size_of(folder, path)
        sizes[row], reasons[row] = size, REASONS.index(why)
    return _Looked(sizes, reasons)


def _size_of(folder: str, path: str) -> tuple[int, str]:
    if path.startswith("/") or "\0" in path:
        return -1, ""
    try:
        status = os.stat(f"{folder}/{path}")
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return -1, NOT_THERE[error.errno]
    if stat.S_ISREG(status.st_mode):
        return status.st_size, ""
    return -1, NOT_THERE[errno.EISDIR] if stat.S_ISDIR(status.st_mode) else NOT_REGULAR
