"""Curves that guard and detectors are judged by: made ones, clean and with one fault planted, and recorded ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ramflow.settings import GuardSettings
from ramflow.train.detect import LOSSES, Context, Detector, Finding, mean_of
from ramflow.train.guard import VALUES, Decision, Guard

RECORDED = Path(__file__).with_name("curves")
LAG = 2
LEVELS = np.array((50.0, 12.0, 0.4, 4.0))
WARMUP = 3000


@dataclass
class Curve:
    """A run: ``values`` [steps, 4] in order of VALUES, and what it would have been without noise."""

    values: np.ndarray
    clean: np.ndarray
    rate: np.ndarray
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)


def clean(steps: int = 20_000, seed: int = 0, batch: int = 416, tail: str = "log-normal", power: float = 0.15) -> Curve:
    """A power law in the steps, faster in the warm-up, under noise of the batch's size; a cosine rate."""
    random = np.random.default_rng([seed, batch, steps])
    step = np.arange(steps)
    rate = np.where(
        step < WARMUP, step / WARMUP, 0.5 + 0.5 * np.cos(np.pi * np.maximum(step - WARMUP, 0) / (steps - WARMUP))
    )
    course = (1 + step / 300) ** -power
    free = np.stack(
        [
            LEVELS[0] * course,
            LEVELS[1] * course,
            LEVELS[2] * (0.5 + 2 * course),
            LEVELS[3] * (1 + 6 * np.exp(-step / 150)),
        ],
        1,
    )
    noise = np.exp({26: 0.2, 52: 0.14, 416: 0.05}[batch] * random.standard_normal((steps, 4)))
    heavy = 0.35 * (random.standard_t(4, steps) if tail == "student" else random.standard_normal(steps))
    peaks = np.where(random.random(steps) < 0.002, random.uniform(3, 5, steps), 1)
    noise[:, 3] = np.maximum(np.minimum(np.exp(heavy), 8), np.where(peaks > 1, peaks, 0))
    return Curve(free * noise, free, rate * 1e-4)


CLEAN = {
    "batch 416": {"batch": 416},
    "batch 52": {"batch": 52},
    "batch 26, noisy": {"batch": 26},
    "heavy-tailed gradient norms": {"batch": 52, "tail": "student"},
    "slow power law": {"batch": 416, "power": 0.08},
}


def guarded(curve: Curve, settings: GuardSettings) -> list[Decision]:
    """What the guard decides when the trainer reads LAG steps late; steps in flight at a rewind are not judged."""
    guard, decisions = Guard(settings), []
    gates = [guard.limits(step) for step in range(LAG)]
    for step, values in enumerate(map(tuple, curve.values.tolist())):
        gates.append(guard.limits(step + LAG))
        decisions.append(guard.judge(step, values, gates[step]))
        if decisions[-1].kind == "stop":
            break
    return decisions


def rows(curve: Curve, every: int = 10, **more: float) -> Iterator[dict[str, Any]]:
    """The rows that the trainer would log."""
    for step in range(0, len(curve), every):
        values = dict(zip(VALUES, curve.values[step].tolist(), strict=True))
        means = curve.values[max(0, step - every + 1) : step + 1].mean(axis=0).tolist()
        values |= {mean_of(name): mean for name, mean in zip(VALUES, means, strict=True) if name in LOSSES}
        relative = values["loss_distillation"] / (LEVELS[2] * 2.5)
        yield {"kind": "train", "step": step, "learning_rate": float(curve.rate[step]), "accepted": True,
               "distillation_relative": relative, "scale": 2.66, **values, **more}  # fmt: skip
        if step % 1000 == 0 and step:
            score = 0.5 * (1 - np.exp(-step / 8000)) + 0.003 * float(np.sin(step * 12.9898) * 43758.5453 % 1 - 0.5)
            yield {"kind": "validation", "step": step, "mAP": score}


def detected(curve: Curve, context: Context | None = None, **more: float) -> list[Finding]:
    """All findings of a curve."""
    detector = Detector(context or Context(False, True, 416, 4_000_000, 0, len(curve)))
    return [finding for row in rows(curve, **more) for finding in detector.see(row)]


def spiked(curve: Curve, value: int, times: float, steps: list[int]) -> Curve:
    """With ``times`` the noise-free value at some steps."""
    curve.values[steps, value] = times * curve.clean[steps, value]
    return curve


def drifting(curve: Curve, value: int, start: int, total: float) -> Curve:
    """Rising from ``start`` on, by a share of ``total`` until the end."""
    step = np.arange(len(curve))
    level = curve.clean[start, value] / curve.clean[:, value]
    up = level * (1 + total * (step - start) / (len(curve) - start))
    curve.values[start:, value] *= up[start:]
    return curve


def swinging(curve: Curve, value: int, start: int, period: int, amplitude: float) -> Curve:
    """Swinging around its course from ``start`` on."""
    step = np.arange(len(curve))[start:]
    curve.values[start:, value] *= 1 + amplitude * np.sin(2 * np.pi * step / period)
    return curve


def flat(curve: Curve, value: int, start: int) -> Curve:
    """Standing still from ``start`` on."""
    curve.values[start:, value] *= curve.clean[start, value] / curve.clean[start:, value]
    return curve


def recorded(name: str) -> tuple[Curve, list[dict[str, Any]]]:
    """A run of this repository's demo, every step: ``healthy`` (batch 26) or ``hot`` (far too high a rate)."""
    kept = [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]
    values = np.array([[row[value] for value in VALUES] for row in kept])
    return Curve(values, values, np.array([row["learning_rate"] for row in kept])), kept
