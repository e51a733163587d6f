"""Dropped tags in training: they are never in the loss, whatever train.missing_tags says of missing ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ramflow.tag_lists.edit import drop
from ramflow.tags import read_tags
from ramflow.train import stage
from tests.train import artifacts


class Seen(Exception):
    """The trainer, before it has trained."""


@pytest.mark.parametrize(
    ("missing_tags", "counted"),
    [("mask", [True, False, True, True, True, False]), ("negative", [True, False, True, True, True, True])],
)
def test_dropped_tags_are_never_in_the_loss(inputs, tmp_path, monkeypatch, missing_tags, counted):
    audit = Path(shutil.copytree(inputs["audit"], tmp_path / "audit"))
    table = drop(read_tags(audit / "tag_status.csv"), ["square"])
    assert table.status[5] == "missing"
    table.write(audit / "tag_status.csv")

    def run(self):
        raise Seen(self.tags.mask.tolist())

    monkeypatch.setattr(stage.Trainer, "run", run)
    paths = {name: Path(path) for name, path in inputs.items()} | {"audit": audit}
    with pytest.raises(Seen) as seen:
        stage.run(artifacts.settings(missing_tags=missing_tags), **paths, out=tmp_path)
    assert seen.value.args[0] == counted


def test_validation_asks_nothing_of_dropped_tags(inputs, tmp_path, monkeypatch):
    def run(self):
        before = self.validation_scores().targets
        self.samples.dataset.tags = drop(self.samples.dataset.tags, ["square"])
        after = self.validation_scores().targets
        raise Seen(before.any(axis=0).tolist(), after.any(axis=0).tolist())

    monkeypatch.setattr(stage.Trainer, "run", run)
    with pytest.raises(Seen) as seen:
        stage.run(artifacts.settings(), **{name: Path(path) for name, path in inputs.items()}, out=tmp_path)
    before, after = seen.value.args
    assert before[:3] == [True, True, True]
    assert after == [before[0], False, *before[2:]]
