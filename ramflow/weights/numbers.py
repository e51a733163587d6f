"""What the numbers of a weights file say without an image: sound, trained, or as a fresh initialisation (F01, F02).

Training moves every norm and bias off its first value, and adds directions to a matrix that stand out of the noise
it started from. The largest singular value of independent random entries with deviation s and mean 0 is s (sqrt(rows) +
sqrt(columns)), whatever their distribution (Bai and Yin, 1993); trained matrices lie well above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

STANDS_OUT = 1.1
MEASURED_DIRECTIONS = 4
POWER_ITERATIONS = 6
SAMPLED_SIDE = 512


@dataclass
class Numbers:
    """Keys of the tensors that are suspicious, by reason; built by :meth:`add`, a tensor at a time.

    ``not_finite`` hold NaN or infinity; ``constant`` hold one value all over; ``untouched`` are to the bit what a
    fresh initialisation has (ones of a norm, zeros of a bias); ``random`` are matrices without a direction that stands
    out, of ``matrices`` in all.
    """

    not_finite: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    random: list[str] = field(default_factory=list)
    matrices: int = 0
    _moved: float = 0.0
    _start: float = 0.0

    @property
    def distance(self) -> float:
        """Distance of the finite matrices to the fresh ones, relative to the norm of all fresh ones."""
        return math.sqrt(self._moved / self._start) if self._start else 0.0

    def add(self, key: str, tensor: Tensor, fresh: Tensor) -> None:
        """Look at one tensor; ``fresh`` has its shape, newly initialised. Both float32."""
        low, high = (float(end) for end in tensor.aminmax())
        finite = math.isfinite(low) and math.isfinite(high)
        if not finite:
            self.not_finite.append(key)
        if torch.equal(tensor, fresh):
            self.untouched.append(key)
        elif low == high:
            self.constant.append(key)
        if tensor.ndim < 2:
            return
        self.matrices += 1
        if not spectral_excess(tensor) >= STANDS_OUT:
            self.random.append(key)
        self._start += float(fresh.norm()) ** 2
        if finite:
            self._moved += float(torch.dist(tensor.double(), fresh.double())) ** 2


def look(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> Numbers:
    """Look at every tensor of ``state``, each read once; ``fresh`` has the same keys and shapes, newly initialised."""
    seen = Numbers()
    for key in state:
        seen.add(key, state[key], fresh[key])
    return seen


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
