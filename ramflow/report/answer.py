"""The answer at the top of the page: can this run be trusted, in one sentence, and what stands against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ramflow.report.artifacts import Run
from ramflow.report.evaluate import EvaluatePart
from ramflow.report.text import names, plural, score
from ramflow.verdict import Check

GATES = ("audit", "embed", "verify", "train", "evaluate")


@dataclass(frozen=True)
class Answer:
    """``state`` is yes, no, or open while stages have not run; findings are pairs of a stage and its check."""

    state: Literal["yes", "no", "open"]
    headline: str
    sentence: str
    tally: str
    errors: list[tuple[str, Check]]
    warnings: list[tuple[str, Check]]


def answer(run: Run, evaluation: EvaluatePart | None) -> Answer:
    """Weigh the verdicts of all stages that have run."""
    checks = [(name, c) for name, verdict in run.verdicts.items() for c in verdict.checks]
    errors = [(name, c) for name, c in checks if c.severity == "error" and not c.passed]
    others = [(name, c) for name, c in checks if name != "scratch"]  # it always warns that it is one
    warnings = [(name, c) for name, c in others if c.severity == "warning" and not c.passed]
    tally = f"{plural(len(checks), 'check')}: {plural(len(errors), 'error')}, {plural(len(warnings), 'warning')}"
    missing = [name for name in GATES if not run.has(name)]
    if errors:
        stages = list(dict.fromkeys(_called(name) for name, _ in errors))
        found_first = errors[0][1].message.partition("; ")[0]  # what to do about it stands in the list below
        sentence = f"{names(stages)} {'says' if len(stages) == 1 else 'say'} no: {_sentence(found_first)}"
        return Answer("no", "Do not trust this run:", sentence, tally, errors, warnings)
    if missing:
        done = [name for name in GATES if run.has(name)]
        sentence = f"{names(done)} passed; {names(missing)} {'has' if len(missing) == 1 else 'have'} not run."
        return Answer("open", "This run is not finished:", sentence, tally, errors, warnings)
    sentence = f"every gate passed; {_scores(evaluation)}." if evaluation else "every gate passed."
    return Answer("yes", "This run can be trusted:", sentence, tally, errors, warnings)


def _called(name: str) -> str:
    return "the from-scratch run" if name == "scratch" else name


def _sentence(message: str) -> str:
    return message if message.endswith((".", "!", "?")) else message + "."


def _scores(evaluation: EvaluatePart) -> str:
    parts = [f"mAP {score(evaluation.mAP)} on {plural(evaluation.images, 'test image')}"]
    if evaluation.over_frequency:
        parts.append(f"{evaluation.over_frequency} times the tag-frequency baseline")
    if evaluation.over_scratch:
        parts.append(f"{evaluation.over_scratch} times the same model trained from scratch")
    return ", ".join(parts)
