"""Batches that would spoil the run: left out one by one, then the run goes back to a checkpoint, then it stops."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ramflow.errors import UserError
from ramflow.settings import GuardSettings
from ramflow.stage import execute
from ramflow.train import loop
from tests.train import artifacts
from tests.train.conftest import TRAIN

GUARD = GuardSettings(window=8, least=4, patience=2, max_rewinds=1)
LONG = {"epochs": 10, "checkpoint_every": 4, "validate_every": 10, "keep_checkpoints": 3}


def spoiled(monkeypatch, steps, seen: dict | None = None) -> None:
    """Infinite caption vectors in the batches of ``steps``; the weights before each step go to ``seen``."""
    step = loop.Trainer._step

    def taken(self, batch):
        if seen is not None:
            seen[self.position.step] = self.model.head.project.weight.detach().clone()
        if self.position.step in steps:
            batch.captions[:] = float("inf")
            batch.caption_ids[:] = 1
        step(self, batch)

    monkeypatch.setattr(loop.Trainer, "_step", taken)


def events(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_one_bad_batch_is_left_out_and_its_images_are_named(inputs, tmp_path, monkeypatch):
    seen: dict[int, torch.Tensor] = {}
    spoiled(monkeypatch, {9}, seen)
    result = execute(TRAIN, artifacts.settings(guard=GUARD, **LONG), inputs, str(tmp_path / "train"))
    (event,) = events(tmp_path / "train")
    assert (event["step"], event["event"], event["detail"]["reason"]) == (9, "skip", "non_finite")
    assert len(event["detail"]["samples"]) == 4 and all(name.endswith(".jpg") for name in event["detail"]["samples"])
    assert torch.equal(seen[9], seen[10]) and not torch.equal(seen[10], seen[11])
    assert [c.id for c in result.checks if not c.passed] == ["train.non_finite"]
    rows = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train" and not r["accepted"]] == [9]


def test_several_in_a_row_bring_back_the_checkpoint_before_them(inputs, tmp_path, monkeypatch):
    seen: dict[int, torch.Tensor] = {}
    kept = tmp_path / "train.partial" / "checkpoints" / "step-00000008" / "model.safetensors"
    spoiled(monkeypatch, {10, 11}, seen)
    before: dict[str, torch.Tensor] = {}
    rewind = loop.Trainer._rewind

    def noted(self, decision):
        self.checkpoints.wait()
        before.update(load_file(kept))
        rewind(self, decision)
        before["now"] = self.model.head.project.weight.detach().clone()

    monkeypatch.setattr(loop.Trainer, "_rewind", noted)
    result = execute(TRAIN, artifacts.settings(guard=GUARD, **LONG), inputs, str(tmp_path / "train"))
    found = [(e["step"], e["event"]) for e in events(tmp_path / "train")]
    assert [name for _, name in found] == ["skip", "skip", "rewind"]
    assert events(tmp_path / "train")[-1]["detail"]["to"] == 8
    assert torch.equal(before["now"], before["head.project.weight"])
    assert not torch.equal(before["now"], seen[10])
    assert result.metrics["rewinds"] == 1 and result.metrics["skipped_steps"] == 2


def test_it_stops_when_going_back_does_not_help(inputs, tmp_path, monkeypatch):
    spoiled(monkeypatch, set(range(10, 30)))
    with pytest.raises(UserError, match=r"step \d+.*max_rewinds 1 allows.*events\.jsonl") as stopped:
        execute(TRAIN, artifacts.settings(guard=GUARD, **LONG), inputs, str(tmp_path / "train"))
    assert "\n" not in str(stopped.value)
    kinds = [e["event"] for e in events(tmp_path / "train.partial")]
    assert kinds.count("rewind") == 1 and kinds[-1] == "skip"


def test_after_a_stop_the_run_goes_on_when_more_is_allowed(inputs, tmp_path, monkeypatch):
    """What the guard allows decides how a run is held, not what it is: it does not start anew."""
    spoiled(monkeypatch, set(range(10, 16)))
    with pytest.raises(UserError):
        execute(TRAIN, artifacts.settings(guard=GUARD, **LONG), inputs, str(tmp_path / "train"))
    seen: dict[int, torch.Tensor] = {}
    spoiled(monkeypatch, set(), seen)
    more = GUARD.model_copy(update={"max_rewinds": 3})
    execute(TRAIN, artifacts.settings(guard=more, **LONG), inputs, str(tmp_path / "train"))
    assert min(seen) >= 8
