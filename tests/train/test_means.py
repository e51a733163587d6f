"""Losses between two rows: what a row says of the steps since the last one, also after a stop between them."""

import json
from statistics import fmean

import pytest

from ramflow import storage
from ramflow.stage import execute
from ramflow.train import loop
from ramflow.train.detect import LOSSES, mean_of
from tests.train import artifacts
from tests.train.conftest import TRAIN

SPARSE = {"epochs": 4, "log_every": 4, "monitor_every": 4, "checkpoint_every": 2}


def train_rows(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train"]


@pytest.fixture(scope="module")
def sparse(inputs, tmp_path_factory):
    """A run that logs every fourth step."""
    out = tmp_path_factory.mktemp("sparse") / "train"
    execute(TRAIN, artifacts.settings(**SPARSE), inputs, str(out))
    return out


def test_a_row_holds_the_mean_of_the_steps_since_the_row_before(sparse, inputs, tmp_path):
    each = artifacts.settings(**SPARSE | {"log_every": 1})
    execute(TRAIN, each, inputs, str(tmp_path / "each"))
    steps = train_rows(tmp_path / "each")
    assert [row["step"] for row in train_rows(sparse)] == [0, 4, 8, 11]
    for row, since in zip(train_rows(sparse), (0, 1, 5, 9), strict=True):
        for name in LOSSES:
            assert row[mean_of(name)] == pytest.approx(fmean(s[name] for s in steps[since : row["step"] + 1])), name
    assert all(row[mean_of(name)] == row[name] for row in steps for name in LOSSES)


def test_a_stop_between_two_rows_changes_nothing(sparse, inputs, tmp_path, monkeypatch):
    step, out = loop.Trainer._step, tmp_path / "train"

    def stopping(self, batch):
        if self.position.step == 7:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "_step", stopping)
        execute(TRAIN, artifacts.settings(**SPARSE), inputs, str(out))
    execute(TRAIN, artifacts.settings(**SPARSE), inputs, str(out))
    assert storage.sha256_tree(out) == storage.sha256_tree(sparse)
