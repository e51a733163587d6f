"""What the verdict of train says of a finished run."""

from __future__ import annotations

import json
from typing import Any

from ramflow.train.logs import EVENTS_FILE
from ramflow.train.loop import Trainer
from ramflow.verdict import Check, Verdict, check
from ramflow.weights.attest import Attestation

Event = dict[str, Any]
"""A row of events.jsonl."""

FINDINGS = ("plateau", "oscillation", "drift")


def summary(trainer: Trainer, attestation: Attestation, started_from: dict[str, Any] | None) -> Verdict:
    """The verdict of a run that has ended; ``started_from`` is where the head came from, if not from the seed."""
    lines = (trainer.out / EVENTS_FILE).read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    position = trainer.position
    return Verdict(
        "train",
        checks=[*_steps(trainer, events), *_images(trainer, events), *_encoder(trainer, attestation, started_from)],
        metrics={
            "steps": trainer.total,
            "images": len(trainer.order),
            "best_step": position.best_step,
            "validation_mAP": position.best_mAP,
            "predict_the_mean": trainer.baselines.distillation,
            "skipped_images": position.skipped_images,
            "skipped_steps": position.skipped_steps,
            "rewinds": position.rewinds,
        },
    )


def _steps(trainer: Trainer, events: list[Event]) -> list[Check]:
    skips = [event for event in events if event["event"] == "skip"]
    broken = [_said(event) for event in skips if event["detail"]["reason"] == "non_finite"]
    spikes = [_said(event) for event in skips if event["detail"]["reason"] == "spike"]
    rewinds = [_said(event) for event in events if event["event"] == "rewind"]
    found = [_said(event) for event in events if event["event"] in FINDINGS]
    total = trainer.total
    listed = ", with their images in events.jsonl"
    return [
        check("train.non_finite", "warning", len(broken), total,
              f"{len(broken)} of {total} steps were left out for a loss or gradient that is not finite"
              + (f"{listed}: lower the rate" if broken else ""), examples=broken),
        check("train.spikes", "warning", len(spikes), total,
              f"{len(spikes)} of {total} steps were left out as spikes" + (listed if spikes else ""), examples=spikes),
        check("train.rewinds", "warning", len(rewinds), total,
              f"the run went back to a checkpoint {len(rewinds)} times", examples=rewinds),
        check("train.curves", "warning", len(found), total,
              f"{len(found)} signs of a swing, a plateau or a drift" + (", listed in events.jsonl" if found else ""),
              examples=found),
    ]  # fmt: skip


def _images(trainer: Trainer, events: list[Event]) -> list[Check]:
    unreadable = [_said(event) for event in events if event["event"] == "skipped_image"]
    seen = trainer.order.seen(trainer.total, trainer.settings.batch)
    return [
        check("train.skipped_images", "warning", len(unreadable), seen,
              f"{len(unreadable)} of {seen} images could not be decoded and were left out"
              + (", listed in events.jsonl: run audit again" if unreadable else ""), examples=unreadable),
    ]  # fmt: skip


def _encoder(trainer: Trainer, attestation: Attestation, started_from: dict[str, Any] | None) -> list[Check]:
    scratch, tensors = trainer.settings.from_scratch, len(attestation.tensors)
    fresh = tensors if scratch else 0
    apart = started_from is not None and started_from["other_encoder"] > 0
    return [
        check("train.start", "warning", int(apart), 1, start_sentence(started_from)),
        check("train.from_scratch", "warning", int(scratch), 1,
              f"the encoder started from {'random weights on purpose' if scratch else 'verified weights'}"),
        check("train.attested", "info", fresh, tensors, f"{tensors - fresh} of {tensors} encoder tensors were, "
              "digested from memory before step 1, those that verify attested", limit=fresh),
    ]  # fmt: skip


def start_sentence(started_from: dict[str, Any] | None) -> str:
    """Where the head began, and whether beside an encoder that it was not trained with."""
    if started_from is None:
        return "the head started from the seed"
    sentence = f"the head started from {started_from['file']}"
    if not started_from["other_encoder"]:
        return sentence
    return (
        f"{sentence}, which was trained with another encoder ({started_from['other_encoder']} tensors differ): give "
        "verify the same --weights as train --start"
    )


def _said(event: Event) -> str:
    detail = event["detail"]
    if isinstance(detail, dict):
        detail = detail.get("sentence") or ", ".join(str(value) for value in detail.values())
    return f"step {event['step']}: {detail}"
