"""Guard and detectors on made curves of 20,000 steps: planted faults found, and alarms on clean curves."""

from __future__ import annotations

import numpy as np

from benchmarks.figures import Figure, Options
from ramflow.settings import GuardSettings
from tests.train import curves as c

FIRST_SEED = 300
"""Other seeds than those that the thresholds were chosen with."""
HARD = ("gradient norm 20 times, steps 250 to 400", "drift by 30 %", "plateau in 46,000 steps, batch 26")
"""At or beyond what can be told from noise: shown, without a target."""


def run(options: Options) -> list[Figure]:
    """Recall a kind of fault and false alarms; ``options.rounds`` seeds of each kind."""
    seeds = range(FIRST_SEED, FIRST_SEED + max(options.rounds, 1))
    found: dict[str, list[float]] = {}
    skips, findings = [], []
    for seed in seeds:
        for name, made in faults(seed).items():
            found.setdefault(name, []).append(made)
    for seed in seeds:
        for kind in c.CLEAN.values():
            curve = c.clean(seed=seed, **kind)
            skips.append(float(sum(d.kind != "accept" for d in c.guarded(curve, GuardSettings()))))
            findings.append(float(len(c.detected(curve))))
    recall = [
        Figure(
            f"instabilities.{name.replace(' ', '_')}",
            f"found: {name}",
            "%",
            [100 * float(np.mean(share))],
            higher_is_better=True,
            limit=None if name in HARD else 100,
        )
        for name, share in found.items()
    ]
    return [
        *recall,
        Figure(
            "instabilities.clean_skips",
            "skipped steps of 20,000 clean ones (mean)",
            "steps",
            [float(np.mean(skips))],
            limit=1,
        ),
        Figure("instabilities.clean_findings", "findings on clean curves (sum)", "findings", [sum(findings)], limit=0),
    ]


def faults(seed: int) -> dict[str, float]:
    """Share found of each kind of planted fault, of one seed."""
    result = {}
    single = list(range(680, 20_000, 430))
    for name, value, times in (("spike of a loss, 5 times", 0, 5), ("spike of the gradient norm, 20 times", 3, 20)):
        result[name] = _skipped(c.spiked(c.clean(seed=seed, batch=26), value, times, single), single)
    result["spike in warm-up"] = _skipped(c.spiked(c.clean(4000, seed, 26), 0, 5, [60, 200, 900]), [60, 200, 900])
    early = [250, 300, 350, 400]
    curve = c.spiked(c.clean(1000, seed, 26), 3, 20, early)
    result["gradient norm 20 times, steps 250 to 400"] = _skipped(curve, early)
    series = list(range(5000, 5005))
    decisions = c.guarded(c.spiked(c.clean(8000, seed, 26), 0, 5, series), GuardSettings())
    result["sustained spike, rewound"] = float(decisions[5004].kind == "rewind" and decisions[5004].before == 5000)
    repeated = list(range(5000, 7000, 50))
    result["repeated spikes"] = _skipped(c.spiked(c.clean(8000, seed, 26), 0, 5, repeated), repeated)
    curve = c.clean(4000, seed)
    curve.values[[3, 500, 3500], [0, 3, 1]] = np.nan
    result["NaN"] = _skipped(curve, [3, 500, 3500])
    for name, event, made in (
        ("drift to twice the value", "drift", c.drifting(c.clean(seed=seed, batch=52), 0, 6000, 1.0)),
        ("swing by 25 %", "oscillation", c.swinging(c.clean(seed=seed, batch=52), 0, 6000, 600, 0.25)),
        ("plateau in 46,000 steps, batch 416", "plateau", c.flat(c.clean(46_000, seed), 0, 8000)),
        ("plateau in 46,000 steps, batch 52", "plateau", c.flat(c.clean(46_000, seed, 52), 0, 8000)),
        ("plateau in 46,000 steps, batch 26", "plateau", c.flat(c.clean(46_000, seed, 26), 0, 8000)),
        ("plateau in 20,000 steps, batch 416", "plateau", c.flat(c.clean(seed=seed), 0, 3500)),
        ("drift by half", "drift", c.drifting(c.clean(seed=seed, batch=52), 0, 6000, 0.5)),
        ("drift by 30 %", "drift", c.drifting(c.clean(seed=seed, batch=52), 0, 6000, 0.3)),
    ):
        result[name] = float(any(f.event == event and f.what == "loss_tag" for f in c.detected(made)))
    return result


def _skipped(curve: c.Curve, steps: list[int]) -> float:
    decisions = c.guarded(curve, GuardSettings())
    return sum(step < len(decisions) and decisions[step].kind != "accept" for step in steps) / len(steps)
