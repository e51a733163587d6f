"""The spike guard: which steps are left out, when to go back to an older checkpoint, when to stop (F20)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ramflow.settings import GuardSettings
from ramflow.train.robust import medians, spread

VALUES = ("loss_tag", "loss_alignment", "loss_distillation", "grad_norm")
LEAST_SPREAD = np.array((0.15, 0.15, 0.15, 1.2))
"""Spread that every value is granted, as a share of its median: very calm series would alarm at nothing, and gradient
norms have harmless peaks, which clipping bounds."""
WIDER = 1.5
"""After a rewind the limits stay, this much wider, until enough values of the older weights are known."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a step."""

    kind: Literal["accept", "skip", "rewind", "stop"]
    """All but accept mean that the step's update was left out."""
    reason: Literal["", "spike", "non_finite"] = ""
    sentence: str = ""
    """What happened, and for stop what to do; for events.jsonl."""
    before: int = 0
    """rewind: the checkpoint must be of this step or an earlier one."""


class Guard:
    """Limits by median and median absolute deviation of accepted values, and decisions about single steps.

    A value's limit is its median plus ``deviations`` spreads over the last ``window`` accepted steps. Decisions
    depend on the values alone; ``state`` holds all of them.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self.forget()
        self._skipped = 0
        self._rewinds = 0

    def forget(self) -> None:
        """Forget all values, not the counts: for a rewind to the initial weights, where no checkpoint is old enough."""
        self._window = np.zeros((self.settings.window, len(VALUES)))
        self._seen = 0
        self._ceiling = (math.inf,) * len(VALUES)
        self._limits: tuple[float, ...] | None = None
        self._row = 0
        self._first = 0

    def limits(self, step: int) -> tuple[float, ...]:
        """The largest values that the step may have, in order of ``VALUES``, exact in float32; inf: no limit yet."""
        if self._limits is None:
            self._limits = (
                self._ceiling if self._seen < min(self.settings.least, self.settings.window) else self._computed()
            )
        return self._limits

    def _computed(self) -> tuple[float, ...]:
        window = self._window[: self._seen]
        middle = medians(window)
        wide = np.maximum(spread(window, middle), LEAST_SPREAD * middle)
        return tuple(float(limit) for limit in (middle + self.settings.deviations * wide).astype(np.float32))

    def judge(self, step: int, values: tuple[float, ...], limits: tuple[float, ...]) -> Decision:
        """Decide about a step from its values and the limits that it was gated with; once a step, in order.

        A step is left out if and only if a value is not finite or above its limit: the device's own rule. Steps that
        were in flight when a rewind was decided are not judged.
        """
        assert len(values) == len(limits) == len(VALUES)
        finite = all(math.isfinite(value) for value in values)
        if finite and all(value <= limit for value, limit in zip(values, limits, strict=True)):
            self._accept(values)
            return Decision("accept")
        self._skipped += 1
        self._first = self._first if self._row else step
        self._row += 1
        what = _what(values, limits)
        reason: Literal["spike", "non_finite"] = "spike" if finite else "non_finite"
        if self._skipped > self.settings.max_skipped_steps:
            return Decision("stop", reason, self._stop(step, what, "max_skipped_steps"))
        if self._row < self.settings.patience:
            return Decision("skip", reason, f"{what}: the update was left out")
        if self._rewinds == self.settings.max_rewinds:
            return Decision("stop", reason, self._stop(step, what, "max_rewinds"))
        return self._rewind(reason, what)

    def _accept(self, values: tuple[float, ...]) -> None:
        self._row = 0
        self._window[:-1] = self._window[1:] if self._seen == len(self._window) else self._window[:-1]
        self._seen = min(self._seen + 1, len(self._window))
        self._window[self._seen - 1] = values
        self._limits = None

    def _rewind(self, reason: Literal["spike", "non_finite"], what: str) -> Decision:
        first, row, rewinds = self._first, self._row, self._rewinds + 1
        ceiling = tuple(float(np.float32(WIDER * limit)) for limit in self.limits(first))
        self.forget()
        self._ceiling, self._rewinds = ceiling, rewinds
        return Decision(
            "rewind",
            reason,
            f"{what}: {row} updates in a row were left out, from step {first} on; back to a checkpoint before that "
            f"(rewind {rewinds} of {self.settings.max_rewinds}), and on with the batches that follow",
            first,
        )

    def _stop(self, step: int, what: str, limit: str) -> str:
        does = {
            "max_skipped_steps": f"{self._skipped} updates of this run were left out",
            "max_rewinds": f"{self._row} updates in a row were left out again after {self._rewinds} rewinds",
        }
        return (
            f"train: step {step}: {what}; {does[limit]}, more than train.guard.{limit} "
            f"{getattr(self.settings, limit)} allows: look at the images of these batches in events.jsonl, lower "
            f"train.learning_rate, or raise train.guard.{limit} and run the same command again"
        )

    def state(self) -> dict[str, Any]:
        """All that decisions depend on, for JSON."""
        return {
            "window": self._window[: self._seen].tolist(),
            "ceiling": [None if math.isinf(limit) else limit for limit in self._ceiling],
            "row": self._row,
            "first": self._first,
            "skipped": self._skipped,
            "rewinds": self._rewinds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; of a longer window the newest values are kept."""
        self.forget()
        rows = state["window"][-self.settings.window :]
        self._seen = len(rows)
        if rows:
            self._window[: len(rows)] = rows
        self._ceiling = tuple(math.inf if limit is None else limit for limit in state["ceiling"])
        self._row, self._first = state["row"], state["first"]
        self._skipped, self._rewinds = state["skipped"], state["rewinds"]


def _what(values: tuple[float, ...], limits: tuple[float, ...]) -> str:
    named = list(zip(VALUES, values, limits, strict=True))
    bad = [f"{name} is {value}" for name, value, _ in named if not math.isfinite(value)]
    high = [f"{name} {value:.4g} is above its limit {limit:.4g}" for name, value, limit in named if value > limit]
    return ", ".join(bad or high)
