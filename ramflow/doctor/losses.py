"""Diagnoses of the losses over a run: not finite, spikes, swings, standing still (F20, F44)."""

from __future__ import annotations

import numpy as np

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.log_file import Row, Run
from ramflow.doctor.series import Floats, fall, relative_residuals, robust_deviation, trailing_median

LOSSES = ("loss_tag", "loss_alignment", "loss_dis", "loss_t2t")
WINDOW = 20
"""Rows around a row that its spike is judged by."""
MIN_ROWS = 20
SPIKE = 0.5
"""Share of the running median above which a row is a spike, if it is also ``SPIKE_DEVIATIONS`` out of the noise."""
SPIKE_DEVIATIONS = 6.0
SWING = 0.2
"""Deviation of single batches, as a share of the running median; the noise of a batch of 26 images is below 0.1."""
EPOCH_SWING = 0.1
STALL_ROWS = 200
STALL_EPOCHS = 3
STALL = 0.01
"""Fall between the second and the last quarter of a run below which a loss stands still."""


def diagnose_losses(case: Case) -> Answer:
    """Look at every loss of the last run in the log."""
    answer = Answer()
    if case.log is None:
        return answer
    run = case.log.last
    for name in LOSSES:
        values, means = np.array(run.series(name)), np.array(run.means(name))
        if not len(values) and not len(means):
            continue
        if found := _not_finite(name, run):
            answer.findings.append(found)
        values, means = values[np.isfinite(values)], means[np.isfinite(means)]
        answer.seen.append(("log", _trend(name, values, means)))
        found_here = [_spikes(name, values, run), _swings(name, values, means)]
        if name != "loss_dis":  # standing still at its floor is another diagnosis
            found_here.append(_stall(name, values, means))
        answer.findings += [finding for finding in found_here if finding]
    if len(run.rows) < MIN_ROWS:
        answer.untold.append(
            Untold(f"did single batches spike or swing: {len(run.rows)} rows of single batches are in the log, "
                   f"{MIN_ROWS} are needed", "--log with the console output of the training (a row every 50 steps)")
        )  # fmt: skip
    return answer


def _trend(name: str, values: Floats, means: Floats) -> str:
    parts = []
    if len(values):
        parts.append(f"{len(values)} rows, {values[0]:.4g} first, {np.median(values[-WINDOW:]):.4g} at the end")
    if len(means):
        parts.append(
            "epoch means " + ", ".join(f"{mean:.4g}" for mean in means[:8]) + (" ..." if len(means) > 8 else "")
        )
    return f"{name}: " + "; ".join(parts)


def _not_finite(name: str, run: Run) -> Finding | None:
    rows = [row for row in run.rows if not np.isfinite(row.values.get(name, 0.0))]
    epochs = [epoch for epoch, values in run.epochs.items() if not np.isfinite(values.get(name, 0.0))]
    if not rows and not epochs:
        return None
    where = _place(rows[0]) if rows else f"epoch {epochs[0]}"
    return Finding(
        "losses.not_finite", "cause", "certain", f"{name} became NaN or infinite",
        [f"first at {where}; {len(rows)} of {len(run.rows)} rows, {len(epochs)} of {len(run.epochs)} epoch means"],
        "The public code has no check before the optimiser step: one such batch puts NaN into every weight, and the "
        "checkpoint keeps them.",
        "Go back to the last checkpoint before it; train in bfloat16 or float32 with clipped gradients.",
        ("losses.spikes", "losses.swings", "losses.stall"),
    )  # fmt: skip


def _spikes(name: str, values: Floats, run: Run) -> Finding | None:
    if len(values) < MIN_ROWS:
        return None
    away = relative_residuals(values, WINDOW)
    limit = max(SPIKE, SPIKE_DEVIATIONS * robust_deviation(away))
    before = trailing_median(values, WINDOW // 2)
    spikes = np.nonzero((away > limit) & (values > (1 + limit) * before))[0]  # not the steep fall at the start
    if len(spikes) < 2:
        return None
    worst = spikes[np.argmax(away[spikes])]
    rows = [row for row in run.rows if np.isfinite(row.values.get(name, np.nan))]
    return Finding(
        "losses.spikes", "symptom", "certain", f"{name} jumps in single batches",
        [f"{len(spikes)} of {len(values)} rows are more than {1 + limit:.2f} times the median of the rows around them",
         f"the worst: {values[worst]:.4g} at {_place(rows[worst])}, {1 + away[worst]:.1f} times its surroundings"],
        "A batch that the model is far off on moves every weight at the full rate: nothing clips its gradient.",
        "Clip the gradient (1.0) and skip batches that are not finite; look at the images of such a batch.",
    )  # fmt: skip


def _swings(name: str, values: Floats, means: Floats) -> Finding | None:
    evidence = []
    settled = values[len(values) // 4 :]
    if len(settled) >= MIN_ROWS and (noise := robust_deviation(relative_residuals(settled, WINDOW))) > SWING:
        evidence.append(f"single batches differ from the median around them by {noise:.0%} (one standard deviation)")
    steps = np.diff(means) / means[:-1] if len(means) > 1 else np.zeros(0)
    if (steps > EPOCH_SWING).any() and (steps < -EPOCH_SWING).any():
        evidence.append("its mean both rose and fell by more than a tenth from one epoch to the next")
    if not evidence:
        return None
    return Finding(
        "losses.swings", "symptom", "certain", f"{name} swings", evidence,
        "Steps are too large for what a batch tells: few images a step at a rate for many, or features that are "
        "still being learnt from nothing.",
        "See the causes above; otherwise more images a step, or a lower rate.",
    )  # fmt: skip


def _stall(name: str, values: Floats, means: Floats) -> Finding | None:
    if len(means) >= STALL_EPOCHS:
        fell, over = 1 - means[-1] / means[1], f"epoch means {means[1]:.4g} (epoch 1) to {means[-1]:.4g} (the last)"
    elif len(values) >= STALL_ROWS:
        fell, over = fall(values), f"the medians of the second and the last quarter of {len(values)} rows"
    else:
        return None
    if fell > STALL:
        return None
    way = "fell" if fell >= 0 else "rose"
    return Finding(
        "losses.stall", "symptom", "certain", f"{name} stands still", [f"it {way} by {abs(fell):.1%} between {over}"],
        "Nothing more is learnt at this rate from these inputs.",
        "See the causes above; where there is none, the rate may be too low or the run at its end.",
    )  # fmt: skip


def _place(row: Row) -> str:
    return f"epoch {row.epoch}, step {row.step}"
