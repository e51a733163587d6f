"""The plan of a packing: every record with the place and size of its image, and which records each shard takes.

A folder: ``records/`` and ``places/`` (Parquet pieces that belong together, a row a record) and ``plan.json``, which is
written last. Shard k is known before any image is copied, so shards can be packed in any order and anywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

import msgspec
import polars as pl

from ramflow.data import dataset as ds
from ramflow.data.records import Piece, piece_path
from ramflow.data.sources import Container
from ramflow.errors import UserError

PLAN_FILE = "plan.json"
RECORDS = "records"
PLACES = "places"


class PlannedShard(msgspec.Struct, frozen=True):
    """A shard to be: the records from ``first`` to ``end`` (numbers over all splits), with ``samples`` images."""

    name: str
    split: str
    first: int
    end: int
    samples: int


class Claim(msgspec.Struct, frozen=True):
    """What a plan is made from: digests of annotations and tags, how each root is matched, and the size of a shard."""

    inputs: dict[str, str]
    matches: list[str]
    shard_bytes: int
    format: int = ds.FORMAT


class Planned(msgspec.Struct, frozen=True):
    """What ``plan.json`` holds.

    ``digest`` stands for the inputs, the shard size, the size of each image, and the reason of each record without one;
    not for folders: the same images elsewhere give the same plan. ``matched`` counts records matched by caption.
    """

    claim: Claim
    digest: str
    containers: list[Container]
    pieces: list[Piece]
    shards: list[PlannedShard]
    matched: dict[str, int]


class Plan:
    """A finished plan, opened; holds a few bytes a shard."""

    def __init__(self, directory: Path, planned: Planned) -> None:
        self.directory = directory
        self.claim = planned.claim
        self.digest = planned.digest
        self.containers = planned.containers
        self.shards = planned.shards
        self.matched = planned.matched
        self._pieces = planned.pieces
        self._firsts = [0, *accumulate(piece.records for piece in planned.pieces)]

    @property
    def records(self) -> int:
        """Records of all splits."""
        return self._firsts[-1]

    @cached_property
    def split_firsts(self) -> dict[str, int]:
        """The number of the first record of each split."""
        firsts: dict[str, int] = {}
        for piece, first in zip(self._pieces, self._firsts, strict=False):
            firsts.setdefault(piece.split, first)
        return firsts

    def rows(self, first: int, end: int) -> Iterator[pl.DataFrame]:
        """The records from ``first`` to ``end``, a piece at a time.

        Columns: those of an annotation file, and split, source, number (in the split), container, name (null: its own
        path), offset, size (null: no image), reason (null: it has one).
        """
        for n in range(bisect_right(self._firsts, first) - 1, len(self._pieces)):
            start, stop = max(first, self._firsts[n]), min(end, self._firsts[n + 1])
            if start >= stop:
                if start >= end:
                    return
                continue
            piece = self._pieces[n]
            halves = [
                pl.scan_parquet(piece_path(self.directory / folder, n)).slice(start - self._firsts[n], stop - start)
                for folder in (RECORDS, PLACES)
            ]
            in_split = start - self.split_firsts[piece.split]
            yield pl.concat(pl.collect_all(halves), how="horizontal").with_columns(
                split=pl.lit(piece.split), source=pl.lit(piece.source),
                number=pl.int_range(in_split, in_split + pl.len()))  # fmt: skip


def read_plan(directory: Path) -> Plan | None:
    """The finished plan in a folder; None where there is none.

    Raises:
        UserError: it is damaged, or of another version of ramflow.
    """
    path = directory / PLAN_FILE
    try:
        planned = msgspec.json.decode(path.read_bytes(), type=Planned)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is not a plan of this version of ramflow ({error}): delete {directory}") from None
    return Plan(directory, planned)


@lru_cache(maxsize=1)
def plan_of_this_process(directory: Path, digest: str) -> Plan:
    """The plan with this digest in a folder, for workers: opened once in a process."""
    plan = read_plan(directory)
    assert plan is not None and plan.digest == digest
    return plan
