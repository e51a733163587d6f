"""Checks of the whole set for images that look alike: near duplicates and near leakage, by perceptual hash.

Images without a hash (blank, or too plain to be known by it) take no part, and of images that are equal byte for byte
the first of its split stands for all: what is equal is found by :mod:`ramflow.audit.dataset`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.near import Pairs, near_pairs
from ramflow.audit.records import first_bits
from ramflow.audit.whole import Failing, Keys, Samples, Whole, first_of, format_series

NOBODY = np.iinfo(np.int64).max


class Hashed(NamedTuple):
    """Images with a perceptual hash, ascending, the first of equal bytes in its split only.

    ``samples``, ``split`` (its number in the ranges of the set), ``hash``, and ``leaked``: an earlier split has the
    same bytes.
    """

    samples: Samples
    split: Samples
    hash: Keys
    leaked: npt.NDArray[np.bool_]


def hashed(whole: Whole) -> Hashed:
    """The images of the set that near checks look at."""
    phash = whole.column("phash")
    samples = np.flatnonzero(phash.is_not_null().to_numpy())
    sha, split = whole.column("sha").to_numpy()[samples], whole.range_of(samples)
    earlier = first_of(sha)
    own = first_of(sha ^ (split.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))
    kept = own == np.arange(len(own))
    hashes = phash.gather(samples[kept]).to_numpy().astype(np.uint64)
    return Hashed(samples[kept], split[kept], hashes, (split[earlier] != split)[kept])


class Near(NamedTuple):
    """Images, ascending; the nearest of the others to each, and its distance in bits."""

    samples: Samples
    others: Samples
    distance: Samples


def find(whole: Whole, radius: int, benchmarks: pl.DataFrame | None) -> list[Failing]:
    """Images that look like an earlier one of their split, like one of an earlier split, and like a benchmark's.

    Args:
        whole: the set.
        radius: bits in which hashes of images that look alike may differ.
        benchmarks: images of benchmarks (``ramflow.audit.benchmarks.SCHEMA``).
    """
    images = hashed(whole)
    others = np.zeros(0, np.uint64) if benchmarks is None else benchmarks["phash"].drop_nulls().to_numpy()
    values = np.unique(np.concatenate([images.hash, others]))
    pairs = near_pairs(values, radius)
    failures = _within(whole, images, values, pairs)
    return failures if benchmarks is None else [*failures, _of_benchmarks(whole, benchmarks, values, pairs)]


def _within(whole: Whole, images: Hashed, values: Keys, pairs: Pairs) -> list[Failing]:
    value = np.searchsorted(values, images.hash)
    duplicates, leaks = [], []
    before = np.full(len(values), NOBODY)  # the first image of each hash in the splits before
    for split in range(len(whole.ranges)):
        own = images.split == split
        first = first_images(images.samples[own], value[own], len(values))
        fresh = own & ~images.leaked
        duplicates.append(nearest(images.samples[own], value[own], first, pairs))
        leaks.append(nearest(images.samples[fresh], value[fresh], before, pairs))
        before = np.minimum(before, first)
    return [_like("set.near_duplicate", whole, duplicates), _like("set.near_leakage", whole, leaks)]


def _of_benchmarks(whole: Whole, benchmarks: pl.DataFrame, values: Keys, pairs: Pairs) -> Failing:
    """Images of the train split that are, or look like, an image of a benchmark; also those that are there twice."""
    train = np.flatnonzero(whole.column("picture").to_numpy())
    train = train[np.array([r.split == "train" for r in whole.ranges])[whole.range_of(train)]]
    rows = np.arange(len(benchmarks)) - len(benchmarks)  # numbers before those of all samples
    exact = _same_bytes(whole, train, benchmarks, rows)
    phash = whole.column("phash").gather(train)
    seen = phash.is_not_null().to_numpy() & ~np.isin(train, exact.samples)
    with_hash = benchmarks["phash"].is_not_null().to_numpy()
    known = np.searchsorted(values, benchmarks["phash"].drop_nulls().to_numpy())
    first = first_images(rows[with_hash], known, len(values))
    value = np.searchsorted(values, phash.to_numpy()[seen])
    near = nearest(train[seen], value, first, pairs)
    samples, others, distance = (np.concatenate(column) for column in zip(exact, near, strict=True))
    order = np.argsort(samples)
    paths = benchmarks["path"].gather(others[order] + len(benchmarks))
    far = pl.Series("far", distance[order])

    def detail(some: slice) -> pl.Series:
        alike = format_series("looks like {}: {} of 64 bits differ", paths[some], far[some])
        return format_series("the bytes of {}", paths[some]).zip_with(far[some] < 0, alike)

    return Failing("set.benchmark_leakage", samples[order], detail)


def _same_bytes(whole: Whole, samples: Samples, benchmarks: pl.DataFrame, rows: Samples) -> Near:
    """The samples that have the bytes of an image of a benchmark; their distance is -1."""
    known, first = np.unique(first_bits(benchmarks["sha256"]).to_numpy(), return_index=True)
    sha = whole.column("sha").to_numpy()[samples]
    place = np.searchsorted(known, sha).clip(max=max(len(known) - 1, 0))
    same = known[place] == sha if len(known) else np.zeros(len(sha), np.bool_)
    return Near(samples[same], rows[first[place[same]]], np.full(np.count_nonzero(same), -1))


def first_images(samples: Samples, value: Samples, values: int) -> Samples:
    """The first of ``samples`` that has each of ``values`` hashes, or ``NOBODY``."""
    first = np.full(values, NOBODY)
    np.minimum.at(first, value, samples)
    return first


def nearest(samples: Samples, value: Samples, others: Samples, pairs: Pairs) -> Near:
    """Of the images with the number before theirs, the nearest to each of ``samples``; of equally near ones the first.

    Args:
        samples: numbers of images, ascending.
        value: the number of each one's hash.
        others: the first image of each hash that may be near, or ``NOBODY``.
        pairs: hashes, all different, that are near to one another, and their distances.
    """
    i, j, bits = pairs
    a, b, distance = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([bits, bits])
    valid = others[b] < first_images(samples, value, len(others))[a]
    a, b, distance = a[valid], b[valid], distance[valid]
    order = np.lexsort((others[b], distance, a))
    a, b, distance = a[order], b[order], distance[order]
    best, of = np.unique(a, return_index=True)
    other, bits_apart = np.full(len(others), NOBODY), np.zeros(len(others), np.int64)
    other[best], bits_apart[best] = others[b[of]], distance[of]
    same = others[value] < samples
    chosen = np.where(same, others[value], other[value])
    far = np.where(same, 0, bits_apart[value])
    found = chosen != NOBODY
    return Near(samples[found], chosen[found], far[found])


def _like(check: str, whole: Whole, near: list[Near]) -> Failing:
    samples, others, distance = (np.concatenate([np.zeros(0, np.int64), *column]) for column in zip(*near, strict=True))

    def detail(some: slice) -> pl.Series:
        names = (whole.keys(others[some]), whole.splits(others[some]), pl.Series(distance[some]))
        return format_series("looks like {} of {}: {} of 64 bits differ", *names)

    return Failing(check, samples, detail)
