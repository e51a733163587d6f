"""Near-duplicate search: seconds and memory by the number of hashes, and how they grow.

The hashes are skewed as those of real pictures are: most are of photographs, whose bits are even; some of symmetric
drawings, half of whose bits are zero; few of flat ones, whose bits are nearly all zero; and some are of pictures that
were copied or changed a little, a few of them thousands of times.
"""

from __future__ import annotations

import math
import time
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, Options
from benchmarks.measure import Run, run_function

HASHES = 1_000_000
FEWEST = 80_000
"""Fewer take no time that could grow."""
STEPS = (0.25, 0.5, 1.0)
"""Shares of the hashes that are searched, for the growth."""
RADIUS = 4

SYMMETRIC, FLAT, COPIED, CHANGED = 0.04, 0.005, 0.01, 0.02
"""Shares of all hashes; the rest is of photographs."""
EVERY_OTHER_BIT = np.uint64(0x5555555555555555)
FEW_BITS = np.uint64(0x00FF00FF000F000F)
LARGEST = 2000
"""Changed copies of the picture that was changed most often; the n-th has a share of one n-th of them."""


def run(options: Options) -> list[Figure]:
    """Seconds and memory at each number of hashes, in turns."""
    counts = [round(max(FEWEST, HASHES * options.scale) * share) for share in STEPS]
    runs: dict[int, list[Run]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            runs[count].append(run_function("benchmarks.near_duplicates:search", count, threads=1))
    seconds = {count: [r.result["seconds"] for r in done] for count, done in runs.items()}
    full = runs[counts[-1]]
    of = f"of {counts[-1] / 1e6:g} M hashes, radius {RADIUS}"
    pairs = f"{full[0].result['pairs'] / 1e6:.2g} M pairs"
    growth = [
        math.log(last / first) / math.log(counts[-1] / counts[0])
        for first, last in zip(seconds[counts[0]], seconds[counts[-1]], strict=True)
    ]
    by_count = ", ".join(f"{median(seconds[count]):.2g} s at {count:,}" for count in counts)
    return [
        Figure("near_duplicates.seconds", f"near-duplicate search {of}", "s", seconds[counts[-1]],
               note=f"one core, {pairs}; {by_count}"),
        Figure("near_duplicates.growth", f"near-duplicate search: exponent of its time from {counts[0]:,} hashes",
               "", growth, limit=1.5, note="2 is all with all"),
        Figure("near_duplicates.memory", f"near-duplicate search {of}, memory", "GiB",
               [r.memory / 2**30 for r in full], note=f"of the process, with its {pairs}"),
    ]  # fmt: skip


def search(count: int) -> dict[str, float]:
    """Time of one search, and the pairs that it finds."""
    from ramflow.audit.near import near_pairs

    hashes = skewed(count)
    start = time.perf_counter()
    i, _, _ = near_pairs(hashes, RADIUS)
    return {"seconds": time.perf_counter() - start, "pairs": len(i)}


def skewed(count: int) -> npt.NDArray[np.uint64]:
    """Hashes in random order, the same every time."""
    random = np.random.default_rng(count)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    parts = np.cumsum([round(share * count) for share in (SYMMETRIC, FLAT, COPIED, CHANGED)])
    hashes[: parts[0]] &= EVERY_OTHER_BIT
    hashes[parts[0] : parts[1]] &= FEW_BITS
    hashes[parts[1] : parts[2]] = random.choice(hashes[parts[3] :], parts[2] - parts[1])
    place, number = parts[2], 1
    while place < parts[3]:
        size = min(max(1, LARGEST // number), parts[3] - place)
        flips = random.random((size, 64)) < 2 / 64
        changes = (flips * (np.uint64(1) << np.arange(64, dtype=np.uint64))).sum(axis=1, dtype=np.uint64)
        hashes[place : place + size] = hashes[-number] ^ changes
        place, number = place + size, number + 1
    return random.permutation(hashes)
