"""Diagnosis of the learning rate: does the warm-up, which lives in epoch 0 only, end in a jump (F23)?"""

from __future__ import annotations

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding

JUMP = 1.3
"""Times the last rate of epoch 0 that the first of epoch 1 may be; it is 0.9 by the recipe."""


def diagnose_rate(case: Case) -> Answer:
    """Look at the printed rates, row by row."""
    answer = Answer()
    if case.log is None or case.log.writer != "public":
        return answer
    rates = [(row.epoch, row.step, row.steps, row.values["lr"]) for row in case.log.last.rows if "lr" in row.values]
    if not rates:
        return answer
    highest = max(rate for *_, rate in rates)
    reached = next(row for row in rates if row[3] >= 0.99 * highest)
    answer.seen.append(("log", f"learning rate: {rates[0][3]:g} first, highest {highest:g} from epoch {reached[0]}, "
                               f"step {reached[1]} on"))  # fmt: skip
    before = [row for row in rates if row[0] == 0]
    after = [row for row in rates if row[0] == 1]
    if before and after and after[0][3] > JUMP * before[-1][3]:
        answer.findings.append(_jump(before[-1], after[0]))
    return answer


def _jump(last: tuple[int, int, int, float], first: tuple[int, int, int, float]) -> Finding:
    return Finding(
        "rate.jump", "cause", "certain", "The learning rate jumps where epoch 1 begins",
        [f"{last[3]:g} at step {last[1]} of {last[2]} in epoch 0, {first[3]:g} at step {first[1]} of epoch 1"],
        "The public code warms up in epoch 0 only, over 3000 steps: an epoch of fewer steps never gets to the end "
        "of it, and the next one starts at the full rate.",
        "Set warmup_steps below the steps of an epoch, or use a schedule over all steps (ramflow's is).",
        ("losses.spikes", "losses.swings"),
    )  # fmt: skip
