"""What the numbers of a weights file say without an image: sound, trained, or as a fresh initialisation (F01, F02).

Training moves every norm and bias off its first value, and adds directions to a matrix that stand out of the noise
it started from. The largest singular value of independent random entries with deviation s and mean 0 is s (sqrt(rows) +
sqrt(columns)), whatever their distribution (Bai and Yin, 1993); trained matrices lie well above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STANDS_OUT = 1.1
MEASURED_DIRECTIONS = 4
POWER_ITERATIONS = 6
SAMPLED_SIDE = 512


@dataclass(frozen=True)
class Numbers:
    """Keys of the tensors that are suspicious, by reason.

    ``not_finite`` hold NaN or infinity; ``constant`` hold one value all over; ``untouched`` are to the bit what a
    fresh initialisation has (ones of a norm, zeros of a bias); ``random`` are matrices without a direction that stands
    out, of ``matrices`` in all. ``distance`` is that of the finite matrices to a fresh initialisation, relative to its
    norm.
    """

    not_finite: list[str]
    constant: list[str]
    untouched: list[str]
    random: list[str]
    matrices: int
    distance: float


def look(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> Numbers:
    """Look at every tensor of ``state``; ``fresh`` has the same keys and shapes, newly initialised. Both float32."""
    ends = {key: torch.stack(tensor.aminmax()) for key, tensor in state.items()}
    not_finite = [key for key, (low, high) in ends.items() if not (low.isfinite() and high.isfinite())]
    untouched = [key for key, tensor in state.items() if torch.equal(tensor, fresh[key])]
    constant = [key for key, (low, high) in ends.items() if low == high and key not in untouched]
    matrices = [key for key, tensor in state.items() if tensor.ndim >= 2]
    random = [key for key in matrices if not spectral_excess(state[key]) >= STANDS_OUT]
    finite = [key for key in matrices if key not in not_finite]
    moved = sum(float((state[key] - fresh[key]).norm()) ** 2 for key in finite)
    start = sum(float(fresh[key].norm()) ** 2 for key in matrices)
    return Numbers(not_finite, constant, untouched, random, len(matrices), math.sqrt(moved / start))


def spectral_excess(matrix: Tensor) -> float:
    """Largest singular value as a multiple of what independent random entries would give; 0 where there is none.

    Tensors of more than two dimensions are flattened after the first, of large ones an even sample of rows and columns
    is taken, and the mean of the entries is taken off.
    """
    entries = matrix.flatten(1).float()
    rows, columns = entries.shape
    entries = entries[:: math.ceil(rows / SAMPLED_SIDE), :: math.ceil(columns / SAMPLED_SIDE)]
    entries = entries - entries.mean()
    deviation = float(entries.std())
    if not 0 < deviation < math.inf:
        return 0.0
    rows, columns = entries.shape
    start = torch.Generator().manual_seed(0)
    basis = torch.randn(columns, min(MEASURED_DIRECTIONS, columns), generator=start)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(entries.T @ (entries @ basis)).Q
    largest = float(torch.linalg.matrix_norm(entries @ basis, 2))
    return largest / (deviation * (math.sqrt(rows) + math.sqrt(columns)))
