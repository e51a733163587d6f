"""Diagnosis of loss_dis: is it where predicting one and the same feature for every image would leave it (F19)?"""

from __future__ import annotations

import numpy as np

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.series import Floats, fall

FLOOR = (0.25, 0.33)
"""Where predicting the mean of CLIP ViT-B/16 features leaves the mean absolute difference: about 0.28."""
LEARNS = 0.05
"""Share by which a loss_dis that learns falls at least, from the second quarter of a run to its last."""
MIN_ROWS = 40
MIN_EPOCHS = 2
OUR_FLOOR = 0.95
"""Of ramflow's ``distillation_relative``, which is 1 at the floor."""


def diagnose_distillation(case: Case) -> Answer:
    """Say whether the image encoder learnt anything of CLIP's features."""
    answer = Answer()
    if case.log is None:
        return answer
    run = case.log.last
    rows, means = _finite(run.series("loss_dis")), _finite(run.means("loss_dis"))
    relative = _finite(run.series("distillation_relative"))
    if not len(rows) and not len(means):
        return answer
    if len(relative) >= MIN_ROWS:
        level = float(np.median(relative[-len(relative) // 4 :]))
        answer.seen.append(("log", f"loss_dis is {level:.2f} times what predicting the mean feature leaves"))
        at_floor, evidence = level > OUR_FLOOR, f"{level:.3f} times the loss of predicting the mean feature, at the end"
    elif len(means) >= MIN_EPOCHS or len(rows) >= MIN_ROWS:
        fell = 1 - means[-1] / means[0] if len(means) >= MIN_EPOCHS else fall(rows)
        level = means[-1] if len(means) else float(np.median(rows[-len(rows) // 4 :]))
        at_floor = FLOOR[0] <= level <= FLOOR[1] and fell < LEARNS
        since = "the first epoch" if len(means) >= MIN_EPOCHS else "the second quarter of the rows"
        evidence = f"{level:.3f} at the end, {fell:.1%} lower than in {since}; the floor of CLIP ViT-B/16 is about 0.28"
    else:
        answer.untold.append(
            Untold("does loss_dis fall: the log is too short", f"--log with {MIN_EPOCHS} epochs or {MIN_ROWS} rows")
        )
        return answer
    if at_floor:
        answer.findings.append(_floor(evidence))
    return answer


def _floor(evidence: str) -> Finding:
    return Finding(
        "distillation.floor", "symptom", "likely", "loss_dis stands at the floor of predicting the mean", [evidence],
        "The class token says the same of every image: the encoder has learnt nothing of CLIP's features, and the "
        "descriptions of a tag are weighted alike for all images.",
        "Look first at whether the encoder started from pretrained weights; then log loss_dis relative to the floor.",
    )  # fmt: skip


def _finite(values: list[float]) -> Floats:
    array = np.array(values)
    return array[np.isfinite(array)]
