"""Near pairs of hashes against all pairs compared, on data planted to be hard."""

from __future__ import annotations

import numpy as np
import pytest

from ramflow.audit import near
from ramflow.audit.near import near_pairs

ONE = np.uint64(1)


def every_pair(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    """By comparing all with all."""
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    i, j = np.nonzero(np.triu(distance <= radius, 1))
    return list(zip(i.tolist(), j.tolist(), distance[i, j].tolist(), strict=True))


def pairs(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in near_pairs(hashes, radius)), strict=True))


def random(count: int, seed: int = 0, mask: int = 2**64 - 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64) & np.uint64(mask)


def flipped(hashes: np.ndarray, flips: int, seed: int = 1) -> np.ndarray:
    """Copies that differ in up to ``flips`` bits."""
    chance = np.random.default_rng(seed)
    for _ in range(flips):
        hashes = hashes ^ (ONE << chance.integers(0, 64, len(hashes), dtype=np.uint64))
    return hashes


HARD = {
    "random": random(3000),
    "planted": np.concatenate([random(600), *(flipped(random(600), flips, flips) for flips in range(1, 7))]),
    "half of the bits are zero": random(3000, mask=0xFFFFFFFF),
    "every other bit is zero": random(3000, mask=0x5555555555555555),
    "twelve bits tell": random(3000, mask=0xFFF << 20),
    "a crowd within three bits of one": flipped(np.full(2200, 12345, np.uint64), 3),
    "a crowd in a crowd": np.concatenate(
        [random(1500), random(900, 2, 0xFF00FF00FF), flipped(random(600, 2, 0xFFFF), 2)]
    ),
    "high bits": np.array([0, 2**63, 2**63 + 1, 2**64 - 1, 1], np.uint64),
}  # fmt: skip


@pytest.mark.parametrize("radius", [0, 1, 4, 8, 16])
@pytest.mark.parametrize("kind", HARD)
def test_all_near_pairs_and_no_others(kind, radius):
    hashes = np.unique(HARD[kind])[:: 1 if radius <= 4 else 3]
    assert pairs(hashes, radius) == every_pair(hashes, radius)


@pytest.mark.parametrize(("small", "short"), [(2, 1), (2, 128), (64, 4)])
@pytest.mark.parametrize("kind", HARD)
def test_tables_of_any_size_find_the_same(kind, small, short, monkeypatch):
    monkeypatch.setattr(near, "SMALL", small)
    monkeypatch.setattr(near, "SHORT_RUN", short)
    hashes = np.unique(HARD[kind])[::3]
    assert pairs(hashes, 4) == every_pair(hashes, 4)


def test_blocks_of_any_size_find_the_same(monkeypatch):
    monkeypatch.setattr(near, "BLOCK", 1000)
    hashes = np.unique(HARD["planted"][:1500])
    assert pairs(hashes, 4) == every_pair(hashes, 4)


def test_copies_are_paired_with_the_first_of_them_only():
    a, b, far = np.uint64(0), np.uint64(0b111), np.uint64(2**64 - 1)
    hashes = np.array([b, far, a, b, a, b], np.uint64)
    assert pairs(hashes, 3) == [(0, 2, 3), (0, 3, 0), (0, 5, 0), (2, 4, 0)]


def test_many_copies_make_few_pairs():
    hashes = np.concatenate([np.full(50_000, 7, np.uint64), np.full(50_000, 6, np.uint64)])
    i, j, distance = near_pairs(hashes, 4)
    assert len(i) == 99_999 and distance.sum() == 1 and (i < j).all()


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_pair(count):
    assert pairs(random(count), 4) == []
