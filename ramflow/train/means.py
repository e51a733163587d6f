"""Means of the losses between two rows of metrics.jsonl: less noise than single steps, above all at small batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramflow.train.detect import LOSSES, mean_of


class Means:
    """Sums of the losses over the accepted steps since the last mean."""

    def __init__(self, sums: list[float] | None = None, steps: int = 0) -> None:
        self._sums = sums or [0.0] * len(LOSSES)
        self._steps = steps

    def add(self, values: Mapping[str, float]) -> None:
        """Take in the losses of an accepted step."""
        self._sums = [total + values[name] for total, name in zip(self._sums, LOSSES, strict=True)]
        self._steps += 1

    def row(self) -> dict[str, float]:
        """The means, by their names in a row."""
        return {mean_of(name): total / self._steps for total, name in zip(self._sums, LOSSES, strict=True)}

    def state(self) -> dict[str, Any]:
        """What ``Means(**state)`` goes on from, for JSON."""
        return {"sums": self._sums, "steps": self._steps}
