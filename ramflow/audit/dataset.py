"""Checks of the whole set that compare for equality: duplicate keys and images, leakage, placeholders."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.captions import captions_each
from ramflow.audit.whole import Failing, Samples, Whole, first_of, format_series, frequent


def duplicate_keys(whole: Whole) -> list[Failing]:
    """Records with the path of an earlier one. Equal means: 64-bit hashes of the paths are."""
    first = first_of(whole.column("path").to_numpy())
    later = np.flatnonzero(first != np.arange(len(first)))
    return [_same_as("set.duplicate_key", whole, later, first[later])]


def same_pictures(whole: Whole, placeholder_records: int) -> list[Failing]:
    """Images whose bytes are those of another: within a split, in two splits, and under many paths.

    Equal means: the first 64 bits of their sha256 are.
    """
    pictures = np.flatnonzero(whole.column("picture").to_numpy())
    sha = whole.column("sha").to_numpy()[pictures]
    of = whole.range_of(pictures)
    anywhere = first_of(sha)
    first = np.concatenate([p + first_of(sha[p:q]) for p, q in _runs(of)]) if len(of) else anywhere
    doubles = np.flatnonzero(first != np.arange(len(first)))
    leaks = np.flatnonzero(of[anywhere] != of)
    return [
        _same_as("set.duplicate_image", whole, pictures[doubles], pictures[first[doubles]]),
        _same_as("set.leakage", whole, pictures[leaks], pictures[anywhere[leaks]]),
        _placeholders(whole, pictures, anywhere, placeholder_records),
    ]


def _runs(of: Samples) -> list[tuple[int, int]]:
    """Start and end of each run of equal numbers."""
    cuts = [0, *(np.flatnonzero(of[1:] != of[:-1]) + 1).tolist(), len(of)]
    return list(pairwise(cuts))


def _same_as(check: str, whole: Whole, samples: Samples, firsts: Samples) -> Failing:
    def detail(some: slice) -> pl.Series:
        return format_series("the same as {} of {}", whole.keys(firsts[some]), whole.splits(firsts[some]))

    return Failing(check, samples, detail)


def _placeholders(whole: Whole, pictures: Samples, group: Samples, least: int) -> Failing:
    """Pictures that ``least`` records have or more, with as many paths and as many captions.

    The path tells a placeholder from an image that has a record a caption.
    """
    members = np.isin(group, frequent(group, least)[0])
    samples, group = pictures[members], pictures[group[members]]
    paths = _distinct(group, whole.column("path").to_numpy()[samples], least)
    kept = np.isin(group, paths)
    samples, group = samples[kept], group[kept]
    of_captions, hashes = captions_each(whole, samples)
    captions = _distinct(group[of_captions], hashes, least)
    kept = np.isin(group, captions)
    samples, group = samples[kept], group[kept]

    def detail(some: slice) -> pl.Series:
        return format_series("the picture of {} under many paths, with as many captions", whole.keys(group[some]))

    return Failing("set.placeholder", samples, detail)


def _distinct(groups: Samples, values: npt.NDArray[np.uint64], least: int) -> Samples:
    """The groups that have ``least`` different values or more."""
    pairs = pl.DataFrame({"group": groups, "value": values}).unique()
    return frequent(pairs["group"].to_numpy(), least)[0]
