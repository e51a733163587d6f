"""Joins of millions of strings, a part of the strings in memory at a time."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

ROWS = 1 << 19


def join_by_key(
    left: pl.LazyFrame,
    right: pl.LazyFrame,
    right_rows: int,
    prepare: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda frame: frame,
) -> pl.DataFrame:
    """Inner join on the column ``key``, a string, which is dropped; in no order.

    About ``ROWS`` rows of ``right`` are in memory at a time, whatever the size of the set: with paths or captions of
    100 bytes, and the hash table, about 100 MB.

    Args:
        left: read once for each part.
        right: the same.
        right_rows: how many rows ``right`` has, or a few more.
        prepare: applied to each part of ``right``; all rows with one key are in one part.
    """
    parts = [
        left.filter(part).join(prepare(right.filter(part)), on="key").drop("key").collect(engine="streaming")
        for part in key_parts(right_rows)
    ]
    return pl.concat(parts)


def key_parts(rows: int) -> list[pl.Expr]:
    """Conditions on ``key`` that split ``rows`` rows into parts of about ``ROWS``, by hash."""
    parts = max(1, -(-rows // ROWS))
    return [pl.col("key").hash() % parts == part for part in range(parts)]
