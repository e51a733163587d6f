"""What the page shows of training: curves, the settings that decide a run, and what happened on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramflow.report.artifacts import Run, reading
from ramflow.report.curves import (
    Chart,
    best,
    gradient_charts,
    loss_charts,
    speed_charts,
    validation_charts,
)
from ramflow.report.events import MOST_EVENTS, Event, event_table, kinds_of, marks_of
from ramflow.report.text import number

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
SPEED_FILE = "speed.jsonl"

Rows = list[dict[str, Any]]
Fact = tuple[str, str, str]
"""Label, value and remark."""


@dataclass(frozen=True)
class TrainPart:
    """Training as the page shows it."""

    step: int
    best: float | None
    best_step: int
    facts: list[Fact]
    marks: list[tuple[str, str]]
    """Class and words of what is marked on the curves."""
    validation: list[Chart]
    losses: list[Chart]
    gradients: list[Chart]
    speed: list[Chart]
    events: list[Event]
    more_events: int


def train_part(run: Run, name: str = "train", thumbnails: int = 0) -> TrainPart:
    """Read the logs of a training run, and the from-scratch run's validations where there is one.

    Args:
        run: the artifacts.
        name: ``train`` or ``scratch``.
        thumbnails: images shown of a batch that was left out.

    Raises:
        UserError: a file is damaged, or a row lacks a value.
    """
    log = run.lines(name, METRICS_FILE)
    with reading(run.paths[name] / EVENTS_FILE):
        events = run.lines(name, EVENTS_FILE)
        marks, table = marks_of(events), event_table(events, run.dataset, thumbnails)
    with reading(run.paths[name] / METRICS_FILE):
        training = [row for row in log if row["kind"] == "train"]
        validation = [row for row in log if row["kind"] == "validation"]
        highest, best_step = best(validation)
        return TrainPart(
            step=max((int(row["step"]) for row in log), default=0),
            best=highest,
            best_step=best_step,
            facts=_facts(run.verdicts[name].settings),
            marks=kinds_of(marks),
            validation=validation_charts(validation, _scratch(run) if name == "train" else []),
            losses=loss_charts(training, marks),
            gradients=gradient_charts(training, marks),
            speed=_speed(run) if name == "train" else [],
            events=table,
            more_events=max(0, len(events) - MOST_EVENTS),
        )


def _scratch(run: Run) -> Rows:
    if not run.has("scratch"):
        return []
    return [row for row in run.lines("scratch", METRICS_FILE) if row["kind"] == "validation"]


def _speed(run: Run) -> list[Chart]:
    if "logs" not in run.paths:
        return []
    with reading(run.paths["logs"] / SPEED_FILE):
        return speed_charts(run.lines("logs", SPEED_FILE))


def _facts(settings: dict[str, Any]) -> list[Fact]:
    """Label, value and remark of the settings that decide a run; those of older versions are fewer."""
    augment = settings["augment"]
    return [
        ("Epochs", number(settings["epochs"]), f"of batches of {number(settings['batch'])}"),
        *_micro_batch(settings),
        ("Peak learning rate", number(settings["learning_rate"]), _rate(settings)),
        ("Precision", str(settings["precision"]), "losses in float32"),
        ("Smallest crop", f"{100 * augment['min_scale']:.3g} %", "of the image, which keeps all its tags"),
        ("RandAugment", f"{augment['operations']} × {augment['magnitude']}", _rand_augment(augment)),
        _balance(settings),
        ("Tags without images", str(settings["missing_tags"]), _missing_tags(settings)),
    ]


def _rand_augment(augment: dict[str, Any]) -> str:
    public = "; auto contrast as in the public code, which turns most images white"
    return "operations × strength, of 10" + (public if augment.get("auto_contrast") == "public" else "")


def _micro_batch(settings: dict[str, Any]) -> list[Fact]:
    if "micro_batch" not in settings:
        return []
    size = settings["micro_batch"]
    return [("Micro-batch", number(size) if size else "whole share", "images a process takes at a time")]


def _rate(settings: dict[str, Any]) -> str:
    warm_up = f"after {number(settings['warmup_steps'])} steps"
    rule = settings.get("learning_rate_rule")
    if rule in (None, "constant"):
        return warm_up
    return f"at a batch of {number(settings['learning_rate_batch'])}, {rule.replace('_', ' ')} rule; {warm_up}"


def _balance(settings: dict[str, Any]) -> Fact:
    balance = settings.get("balance")
    weights = balance or settings["loss"]
    three = [weights[key] for key in ("tag", "alignment", "distillation")]
    if balance and balance["mode"] == "upstream":
        return "Balance", "upstream", f"as at a batch of {number(balance['batch'])} a GPU"
    if balance and balance["mode"] == "automatic":
        return "Balance", "automatic", "gradients of one size on the encoder"
    return "Loss weights", " : ".join(f"{weight:g}" for weight in three), "tags : alignment : distillation"


def _missing_tags(settings: dict[str, Any]) -> str:
    choice = settings["missing_tags"]
    if choice == "smooth":
        return f"learnt towards {settings['label_smoothing']:g}"
    return "no loss on them" if choice == "mask" else "learnt as always absent"
