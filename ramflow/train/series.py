"""One logged loss over a run: its newest rows, and medians of blocks of rows for what takes long."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ramflow.train.robust import Array, fall, rise, swing

ROWS = 256
"""Values that a swing is looked for in."""
COARSE = 4
"""Rows a value where longer swings are looked for."""
DRIFT_BLOCKS = 48
MIN_RISE, MIN_Z = math.log(1.1), 5.0
PLATEAU_BLOCKS = 48
MIN_FALL = 0.02
"""A loss that surely falls by less over the second half of the run since the warm-up stands still."""
MIN_SHARE, MIN_AMPLITUDE = 0.3, 0.05


class Series:
    """Logarithms of one loss; ``block`` rows make one median."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.fine: list[tuple[int, float]] = []
        self.coarse: list[tuple[int, float]] = []
        self.blocks: list[tuple[int, float]] = []
        self.pending: list[tuple[int, float]] = []
        self.count = 0

    def add(self, step: int, value: float) -> bool:
        """Take a value in; returns whether a block is whole, so that it is time to look."""
        self.count += 1
        self.fine = [*self.fine[-ROWS + 1 :], (step, math.log(max(value, 1e-12)))]
        if self.count % COARSE == 0:
            self.coarse = [*self.coarse[-ROWS + 1 :], _middle(self.fine[-COARSE:])]
        self.pending.append(self.fine[-1])
        if len(self.pending) < self.block:
            return False
        self.blocks.append(_middle(self.pending))
        self.pending = []
        return True

    def drift(self) -> tuple[int, float] | None:
        """Since which step the loss rises, and by which share."""
        recent = self.blocks[-DRIFT_BLOCKS:]
        if len(recent) < DRIFT_BLOCKS:
            return None
        total, z = rise(_values(recent))
        if total < MIN_RISE or z < MIN_Z:
            return None
        return recent[0][0], math.expm1(total)

    def plateau(self, start: int) -> tuple[int, float] | None:
        """Since which step after ``start`` the loss stands still, and by which share it can have fallen at most."""
        later = [entry for entry in self.blocks if entry[0] >= start]
        half = later[len(later) // 2 :]
        if len(half) < PLATEAU_BLOCKS:
            return None
        difference, error = fall(_values(half))
        most = difference + 3 * error
        return (half[0][0], max(most, 0.0)) if most < MIN_FALL else None

    def swings(self) -> tuple[int, float, float, bool] | None:
        """Since which step, amplitude as a share, period in steps, and whether it grows."""
        for entries in (self.fine, self.coarse):
            if len(entries) < ROWS:
                continue
            values = _values(entries)
            share, amplitude, period = swing(values)
            if share > MIN_SHARE and amplitude > MIN_AMPLITUDE:
                steps = (entries[-1][0] - entries[0][0]) / (ROWS - 1)
                earlier, later = (float(np.std(half)) for half in np.split(values, 2))
                return entries[0][0], math.expm1(amplitude), period * steps, later > 1.5 * earlier
        return None

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"block": self.block, "count": self.count, **{name: getattr(self, name) for name in _LISTS}}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Series:
        """The series of a state."""
        result = cls(state["block"])
        result.count = state["count"]
        for name in _LISTS:
            setattr(result, name, [(step, value) for step, value in state[name]])
        return result


_LISTS = ("fine", "coarse", "blocks", "pending")


def _middle(entries: list[tuple[int, float]]) -> tuple[int, float]:
    return entries[0][0], float(np.median(_values(entries)))


def _values(entries: list[tuple[int, float]]) -> Array:
    return np.array([value for _, value in entries])
