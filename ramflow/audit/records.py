"""The records of one unit, their lists laid flat: what the checks of text and tags work on, thousands at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.data.annotations import Record

Rows = npt.NDArray[np.int64]


class Ids(NamedTuple):
    """Tag ids one after another, and the row of the record that each belongs to, ascending."""

    rows: Rows
    ids: Rows


@dataclass(frozen=True)
class Records:
    """Records, each known by its row, from 0.

    ``paths`` are their ``image_path``; ``caption`` are the captions of all records one after another, of which
    ``captions_each`` belong to each, int64 [records]. ``union`` are the ids of ``union_label_id``; ``parsed`` those of
    all lists of ``parse_label_id``, and ``parsed_lists_each`` says how many lists each record has.
    """

    paths: pl.Series
    caption: pl.Series
    captions_each: Rows
    union: Ids
    parsed: Ids
    parsed_lists_each: Rows

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def captions(self) -> pl.DataFrame:
        """A row a caption: ``row`` of its record, ``number`` within the record, ``caption``."""
        row = np.repeat(np.arange(len(self)), self.captions_each)
        starts = np.cumsum(self.captions_each) - self.captions_each
        return pl.DataFrame({"row": row, "number": np.arange(len(row)) - starts[row], "caption": self.caption})


def of_manifest(frame: pl.DataFrame) -> Records:
    """The records of rows of a manifest."""
    captions, union, parsed = (frame[name] for name in ("captions", "union_tags", "parsed_tags"))
    rows, lists = np.arange(len(frame)), _lengths(parsed)
    return Records(
        paths=frame["image_path"],
        caption=captions.explode(empty_as_null=False).alias("caption"),
        captions_each=_lengths(captions),
        union=_flat(rows, union),
        parsed=_flat(np.repeat(rows, lists), parsed.explode(empty_as_null=False)),
        parsed_lists_each=lists,
    )


def _lengths(lists: pl.Series) -> Rows:
    return lists.list.len().to_numpy().astype(np.int64)


def _flat(rows: Rows, lists: pl.Series) -> Ids:
    return Ids(np.repeat(rows, _lengths(lists)), lists.explode(empty_as_null=False).to_numpy().astype(np.int64))


def of_annotations(records: Sequence[Record]) -> Records:
    """The records of a piece of an annotation file."""
    rows = np.arange(len(records))
    captions, parsed = [r.caption for r in records], [r.parse_label_id for r in records]
    lists = _count(parsed)
    return Records(
        paths=pl.Series("image_path", [r.image_path for r in records], pl.String),
        caption=pl.Series("caption", list(chain.from_iterable(captions)), pl.String),
        captions_each=_count(captions),
        union=_chained(rows, [r.union_label_id for r in records]),
        parsed=_chained(np.repeat(rows, lists), list(chain.from_iterable(parsed))),
        parsed_lists_each=lists,
    )


def _count(lists: Iterable[Sequence[object]]) -> Rows:
    return np.fromiter(map(len, lists), dtype=np.int64)


def _chained(rows: Rows, lists: Sequence[Sequence[int]]) -> Ids:
    lengths = _count(lists)
    ids = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(lengths.sum()))
    return Ids(np.repeat(rows, lengths), ids)


def first_bits(sha256: pl.Series) -> pl.Series:
    """The first 64 bits of digests in hex."""
    return sha256.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)
