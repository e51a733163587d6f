"""Near duplicates: all pairs of 64-bit hashes within a Hamming radius, exactly, without comparing all with all.

Two hashes that differ in at most r bits agree in at least k of r + k bands of bits, whatever the bands. So a table for
every choice of k bands, sorted by those bits, brings every pair together at least once, and few others. A run of equal
bits that is long is searched in the same way by the bits that are left: data that agree in many bands by design cost
no more than their pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.uint8]
Pairs = tuple[Indices, Indices, Distances]

SHORT_RUN = 128
"""Runs up to this long are compared by shifting the sorted table against itself."""
SMALL = 2048
"""Hashes that are compared all with all: a table costs more."""
BLOCK = 1 << 20
"""Comparisons held at a time."""
SORTING = 8
"""What a hash costs in a table, in comparisons."""
MOST_AGREEING = 6
"""Bands that a table is made of, at the most."""


def near_pairs(hashes: Hashes, radius: int) -> Pairs:
    """All near pairs of ``hashes`` [n], as indices i < j and distances, in order of i and j.

    Equal hashes are paired with the first of them only, at distance 0, and only the first is paired with others: the
    copies of one picture make n pairs, not n².
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    chunks = [_ordered(first[i], first[j], distance) for i, j, distance in _search(unique, radius)]
    places = np.arange(len(hashes))
    copies = places[first[inverse] != places]
    chunks.append((first[inverse][copies], copies, np.zeros(len(copies), np.uint8)))
    i, j, distance = (np.concatenate(column) for column in zip(*chunks, strict=True))
    order = np.argsort(i * len(hashes) + j)
    return i[order], j[order], distance[order]


def _ordered(i: Indices, j: Indices, distance: Distances) -> Pairs:
    return np.minimum(i, j), np.maximum(i, j), distance


def _search(hashes: Hashes, radius: int) -> Iterator[Pairs]:
    """All near pairs of different hashes, each once, in pieces."""
    bands, agreeing = _plan(hashes, radius)
    if not agreeing:
        yield from _all_with_all(hashes, radius)
        return
    for chosen in combinations(range(len(bands)), agreeing):
        mask = np.bitwise_or.reduce(bands[list(chosen)])
        others = [bands[b] for b in range(chosen[-1]) if b not in chosen]
        for i, j, distance in _in_table(hashes, mask, radius):
            differing = hashes[i] ^ hashes[j]
            new = np.ones(len(i), np.bool_)  # an earlier table has the pair where an earlier band agrees as well
            for band in others:
                new &= (differing & band) != 0
            if new.any():
                yield i[new], j[new], distance[new]


def _plan(hashes: Hashes, radius: int) -> tuple[Hashes, int]:
    """The bands as masks, and how many must agree: 0 where comparing all with all is cheapest."""
    n = len(hashes)
    cheapest, agreeing = n / 2, 0
    if n > SMALL:
        entropy = _entropy(hashes)
        bits = np.argsort(-entropy, kind="stable")[: np.count_nonzero(entropy)]
        for k in range(1, min(MOST_AGREEING, len(bits) - radius) + 1):
            together = n / 2 ** (1 + entropy.sum() * k / (radius + k))
            cost = comb(radius + k, k) * (SORTING + together)
            if cost < cheapest:
                cheapest, agreeing = cost, k
    if not agreeing:
        return np.array([], np.uint64), 0
    bands = np.zeros(radius + agreeing, np.uint64)
    for place, bit in enumerate(bits):  # dealt out there and back, so that all bands tell about as much
        lap, seat = divmod(place, len(bands))
        bands[seat if lap % 2 == 0 else -1 - seat] |= np.uint64(1) << np.uint64(bit)
    return bands, agreeing


def _entropy(hashes: Hashes) -> npt.NDArray[np.float64]:
    """What each of the 64 bits tells, in bits; 0 where all hashes agree."""
    ones = np.array([np.count_nonzero(hashes & (np.uint64(1) << np.uint64(bit))) for bit in range(64)])
    share = ones / len(hashes)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    return np.nan_to_num(entropy)


def _in_table(hashes: Hashes, mask: np.uint64, radius: int) -> Iterator[Pairs]:
    """All near pairs that agree in the bits of ``mask``."""
    keys = hashes & mask
    order = np.argsort(keys)
    keys, ordered = keys[order], hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1], [True])))
    lengths = np.diff(starts)
    long = lengths > SHORT_RUN
    left = np.repeat(~long, lengths)
    for start, length in zip(starts[:-1][long], lengths[long], strict=True):
        run = order[start : start + length]
        for i, j, distance in _search(hashes[run], radius):
            yield run[i], run[j], distance
    place = np.flatnonzero(left)
    for shift in range(1, SHORT_RUN):
        place = place[: np.searchsorted(place, len(keys) - shift)]
        place = place[keys[place] == keys[place + shift]]
        if not len(place):
            return
        yield from _near(order, ordered, place, place + shift, radius)


def _all_with_all(hashes: Hashes, radius: int) -> Iterator[Pairs]:
    n = len(hashes)
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, n, rows):
        distance = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[start:])
        i, j = np.nonzero(distance <= radius)
        later = i < j
        i, j = i[later], j[later]
        yield i + start, j + start, distance[i, j]


def _near(order: Indices, hashes: Hashes, i: Indices, j: Indices, radius: int) -> Iterator[Pairs]:
    distance = np.bitwise_count(hashes[i] ^ hashes[j])
    near = distance <= radius
    if near.any():
        yield order[i[near]], order[j[near]], distance[near]
