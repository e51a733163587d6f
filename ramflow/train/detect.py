"""What goes wrong slowly, seen in the logged rows: oscillation, plateau, drift; a sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ramflow.train.series import Series

LOSSES = ("loss_tag", "loss_alignment", "loss_distillation")
HIGH_RATE = 0.3
"""Share of the highest rate so far under which a run is ending: standing still is then no plateau."""
FLOOR, FLOOR_BLOCKS = 0.95, 8
"""distillation_relative of a student that learnt no more than the teacher's mean, and medians that must be so."""
VALIDATIONS = 10
"""Validations in a row without a better mAP."""
REVERSING, COSINES = -0.3, 20
"""Median cosine of successive gradients that means swinging, and how many are looked at."""
CALM = 10
"""Looks in a row without a finding before it is said to be over."""
SCALE_CLAMP = math.log(100)
SMALL_BATCH = 64


@dataclass(frozen=True)
class Context:
    """What the run is, for causes."""

    from_scratch: bool
    attested: bool
    batch: int
    images: int
    masked_tags: int
    total_steps: int


@dataclass(frozen=True)
class Finding:
    """What was seen; ``event`` ends in ``_over`` where it is gone."""

    event: str
    what: str
    since: int
    sentence: str


def mean_of(loss: str) -> str:
    """The key of a loss's mean over the accepted steps since the last row, of which one was accepted."""
    return f"{loss}_mean"


class Detector:
    """Watches rows of metrics.jsonl. A finding is said once, and again only after it was over."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._series: dict[str, Series] = {}
        self._relative: list[float] = []
        self._cosines: list[tuple[int, float]] = []
        self._rate, self._peak, self._warm = 0.0, 0.0, 0
        self._best, self._best_step, self._stale = -1.0, 0, 0
        self._last = -1
        self._active: dict[str, list[int]] = {}
        self._monitors: dict[str, float] = {}

    def see(self, row: Mapping[str, Any]) -> list[Finding]:
        """Take a row in; returns what is new. Rows whose update was left out do not count."""
        if row["kind"] == "validation":
            return self._validation(row)
        if row["kind"] != "train" or not row.get("accepted", True):
            return []
        step, rate = int(row["step"]), float(row["learning_rate"])
        self._rate = rate
        if rate > self._peak:
            self._peak, self._warm = rate, step
        names = ("scale", *(f"grad_norm_{name[5:]}" for name in LOSSES))
        self._monitors |= {name: float(row[name]) for name in names if name in row}
        found = [finding for name in LOSSES for finding in self._loss(step, name, row)]
        self._last = step
        if "cosine_previous" in row and math.isfinite(row["cosine_previous"]):
            found += self._cosine(step, float(row["cosine_previous"]))
        return found

    @property
    def _ending(self) -> bool:
        return self._rate < HIGH_RATE * self._peak

    def _loss(self, step: int, name: str, row: Mapping[str, Any]) -> Iterator[Finding]:
        if name not in row or not math.isfinite(row[name]):
            return
        if name not in self._series:
            if self._last < 0:
                return  # the first row: the distance of rows is known at the second
            rows = self.context.total_steps // max(step - self._last, 1)
            self._series[name] = Series(min(max(rows // 240, 4), 40))
        series = self._series[name]
        value = float(row.get(mean_of(name), row[name]))
        whole = series.add(step, value)
        if name == "loss_distillation" and "distillation_relative" in row:
            relative = float(row["distillation_relative"]) * (value / float(row[name]) if row[name] else 1.0)
            self._relative = [*self._relative[-FLOOR_BLOCKS * series.block + 1 :], relative]
        if not whole:
            return
        if name == "loss_distillation":
            floor = self._floor(step, series)
            yield from self._say("floor", "plateau", name, floor, step)
            if floor:
                return
        drift = self._drift(name, series)
        yield from self._say("drift", "drift", name, drift, step)
        if not self._ending and not drift:
            yield from self._say("plateau", "plateau", name, self._plateau(name, series), step)
        yield from self._say("oscillation", "oscillation", name, self._swing(name, series), step)

    def _floor(self, step: int, series: Series) -> tuple[int, str] | None:
        rows = FLOOR_BLOCKS * series.block
        since = series.blocks[-FLOOR_BLOCKS][0] if len(series.blocks) >= FLOOR_BLOCKS else -1
        if since < self._warm or (self._rate >= self._peak and self._warm == step) or len(self._relative) < rows:
            return None
        parts = [sorted(self._relative[at : at + series.block]) for at in range(0, rows, series.block)]
        middles = [part[len(part) // 2] for part in parts]
        if min(middles) < FLOOR:
            return None
        value = sorted(middles)[len(middles) // 2]
        return since, (
            f"loss_distillation is at its floor since step {since}: {value:.2f} times what always predicting the "
            f"teacher's mean feature would get; {self._cause('loss_distillation', self._encoder())}"
        )

    def _encoder(self) -> str:
        if self.context.from_scratch:
            return "the encoder started from random weights (train.from_scratch)"
        if not self.context.attested:
            return "the encoder's attestation is missing: its pretrained weights may not have been loaded; run verify"
        return ""

    def _plateau(self, name: str, series: Series) -> tuple[int, str] | None:
        found = series.plateau(self._warm)
        if not found:
            return None
        since, most = found
        return since, (
            f"{name} stands still since step {since}: it fell by less than {most:.1%}, at a learning rate of "
            f"{self._rate:.2g}; {self._cause(name)}"
        )

    def _drift(self, name: str, series: Series) -> tuple[int, str] | None:
        found = series.drift()
        if not found:
            return None
        since, share = found
        return since, (
            f"{name} rises slowly since step {since}, by {share:.0%} so far; "
            f"{self._cause(name, f'the learning rate {self._rate:.2g} may be too high')}"
        )

    def _swing(self, name: str, series: Series) -> tuple[int, str] | None:
        found = series.swings()
        if not found:
            return None
        since, amplitude, period, grows = found
        return since, (
            f"{name} swings by {amplitude:.0%} around its course with a period of about {period:.0f} steps since step "
            f"{since}{', and more and more' if grows else ''}; "
            f"{self._cause(name, f'the learning rate {self._rate:.2g} may be too high, or the data repeats')}"
        )

    def _cosine(self, step: int, value: float) -> list[Finding]:
        self._cosines = [*self._cosines[-COSINES + 1 :], (step, value)]
        middle = sorted(cosine for _, cosine in self._cosines)[len(self._cosines) // 2]
        found = None
        if len(self._cosines) == COSINES and middle < REVERSING:
            since = self._cosines[0][0]
            found = (
                since,
                (
                    f"the gradient turns around from step to step since step {since} (cosine {middle:.2f} to the step "
                    f"before); {self._cause('', f'the learning rate {self._rate:.2g} is too high')}"
                ),
            )
        return list(self._say("oscillation", "oscillation", "gradient", found, step))

    def _validation(self, row: Mapping[str, Any]) -> list[Finding]:
        step, score = int(row["step"]), float(row["mAP"])
        found = None
        if score > self._best:
            self._best, self._best_step, self._stale = score, step, 0
        else:
            self._stale += 1
        if self._ending:
            return []
        if self._stale >= VALIDATIONS:
            found = (
                self._best_step,
                (
                    f"validation mAP has not passed {self._best:.4f} since step {self._best_step}, in {self._stale} "
                    f"validations, at a learning rate of {self._rate:.2g}; "
                    f"{self._cause('', 'the model may fit the training images only, or the rate is too high')}"
                ),
            )
        return list(self._say("plateau", "plateau", "mAP", found, step))

    def _cause(self, name: str, first: str = "") -> str:
        """Likely causes, the likeliest first."""
        context, causes = self.context, [first] if first else []
        norms = {loss: self._monitors.get(f"grad_norm_{loss[5:]}", 0.0) for loss in LOSSES}
        largest = max(norms, key=lambda loss: norms[loss])
        if name in norms and 0 < 10 * norms[name] < norms[largest]:
            times = norms[largest] / norms[name]
            causes.append(f"the gradient of {largest} is {times:.0f} times that of {name}: see train.balance")
        if self._monitors.get("scale", 0.0) >= SCALE_CLAMP - 0.01:
            causes.append("the re-weighting scale is at its clamp, ln(100)")
        if name == "loss_tag" and context.masked_tags:
            causes.append(f"{context.masked_tags} tags are masked and learn nothing")
        if self._encoder() and self._encoder() not in causes and name != "":
            causes.append(self._encoder())
        if context.batch < SMALL_BATCH:
            causes.append(f"the batch of {context.batch} is small")
        return "likely cause: " + ("; or ".join(causes) or f"the learning rate {self._rate:.2g}")

    def _say(self, kind: str, event: str, what: str, found: tuple[int, str] | None, step: int) -> Iterator[Finding]:
        key = f"{kind} {what}"
        if found and key not in self._active:
            self._active[key] = [found[0], 0]
            yield Finding(event, what, *found)
        elif found:
            self._active[key][1] = 0
        elif key in self._active:
            self._active[key][1] += 1
            if self._active[key][1] == CALM:
                since = self._active.pop(key)[0]
                yield Finding(f"{event}_over", what, since, f"the {event} of {what} is over, at step {step}")

    def state(self) -> dict[str, Any]:
        """All that findings depend on, for JSON."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**plain, "series": {name: series.state() for name, series in self._series.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self._cosines = [(step, value) for step, value in state["_cosines"]]
        self._series = {name: Series.of(series) for name, series in state["series"].items()}


_PLAIN = (
    *("_relative", "_cosines", "_rate", "_peak", "_warm", "_best", "_best_step", "_stale"),
    *("_last", "_active", "_monitors"),
)
