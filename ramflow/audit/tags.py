"""Tag checks of single records: ids against the tag list, parsed tags against captions and union (F08, F12)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.findings import faults
from ramflow.audit.records import Ids, Records, Rows

Mask = npt.NDArray[np.bool_]

TABLE = 1 << 20
"""Entries of the table that ids are marked in: it stays in the processor's cache."""


def find(records: Records, tags: int, dropped: Sequence[int] = ()) -> tuple[list[pl.DataFrame], Mask]:
    """Failures of every check, at most one a record and check; and which ids of the union count.

    Args:
        records: the records.
        tags: length of the tag list that the ids point into.
        dropped: ids that the list marks as dropped: no error, but a record that has no others has no tags.

    Returns:
        Failures (``FAULT_SCHEMA``), and a mask over ``records.union``: inside the list, and named the first time.
    """
    union, parsed = records.union, records.parsed
    repeated, lacking = compare(union, parsed, len(records), tags)
    rows, ids = np.concatenate([union.rows, parsed.rows]), np.concatenate([union.ids, parsed.ids])
    lists, captions = records.parsed_lists_each, records.captions_each
    misaligned = np.flatnonzero((lists > 0) & (lists != captions))
    both = pl.DataFrame({"lists": lists[misaligned], "captions": captions[misaligned]})
    counted = both.select(pl.format("{} lists of parsed tags for {} captions", "lists", "captions")).to_series()
    unused = np.isin(ids, np.asarray(dropped, dtype=np.int64))
    without = np.flatnonzero(np.bincount(union.rows[~unused[: len(union.ids)]], minlength=len(records)) == 0)
    of_union = np.bincount(union.rows, minlength=len(records))[without]
    why = pl.Series(["union_label_id has dropped tags only" if n else "union_label_id is empty" for n in of_union])
    failures = [
        _listing("tags.out_of_range", rows, ids, ids >= tags, f"ids {{}}; the last of the tag list is {tags - 1}"),
        _listing("tags.negative", rows, ids, ids < 0, "ids {}"),
        _listing("tags.duplicate_id", *union, repeated, "ids {} in union_label_id"),
        faults("tags.parse_misaligned", misaligned, counted),
        _listing("tags.parsed_not_in_union", *parsed, lacking, "ids {}"),
        faults("tags.no_union", without, why),
        _listing("tags.dropped", rows, ids, unused, "ids {}"),
    ]
    return failures, ~repeated & _inside(union.ids, tags)


def compare(union: Ids, parsed: Ids, records: int, tags: int) -> tuple[Mask, Mask]:
    """Which ids of the union stand in their record again, and which parsed ids the union of their record lacks."""
    if _inside(union.ids, tags).all() and _inside(parsed.ids, tags).all():
        return _compare_in_table(union, parsed, records, tags)
    own, others = (of.rows << 32 | of.ids + (1 << 31) for of in (union, parsed))
    repeated = np.ones(len(own), dtype=np.bool_)
    repeated[np.unique(own, return_index=True)[1]] = False
    return repeated, np.isin(others, own, invert=True)


def _compare_in_table(union: Ids, parsed: Ids, records: int, tags: int) -> tuple[Mask, Mask]:
    """In a table of some records by tags, each id of ``union`` leaves its place; the last one stays."""
    height = max(1, TABLE // tags)
    place = np.full(height * tags, -1, dtype=np.int32)
    repeated, lacking = np.zeros(len(union.ids), dtype=np.bool_), np.zeros(len(parsed.ids), dtype=np.bool_)
    firsts = np.arange(0, records + height, height)
    for first, u, v, p, q in zip(firsts, *_bounds(union.rows, firsts), *_bounds(parsed.rows, firsts), strict=False):
        keys = (union.rows[u:v] - first) * tags + union.ids[u:v]
        numbers = np.arange(u, v, dtype=np.int32)
        place[keys] = numbers
        repeated[u:v] = place[keys] != numbers
        lacking[p:q] = place[(parsed.rows[p:q] - first) * tags + parsed.ids[p:q]] < u
    return repeated, lacking


def _bounds(rows: Rows, firsts: Rows) -> tuple[Rows, Rows]:
    cuts = np.searchsorted(rows, firsts)
    return cuts[:-1], cuts[1:]


def _inside(ids: Rows, tags: int) -> Mask:
    return (ids >= 0) & (ids < tags)


def _listing(check: str, rows: Rows, ids: Rows, failed: Mask, detail: str) -> pl.DataFrame:
    """A failure for every record with ids that ``failed``; they take the place of ``{}``."""
    chosen = np.flatnonzero(failed)
    if not len(chosen):
        return faults(check, [], "")
    listed = pl.DataFrame({"row": rows[chosen], "id": ids[chosen]}).unique().sort("row", "id")
    listed = listed.group_by("row", maintain_order=True).agg(pl.col("id").cast(pl.String))
    text = listed.select(pl.format(detail, pl.col("id").list.join(", "))).to_series()
    return faults(check, listed["row"], text)
