"""Every recipe trains: three steps of it, its sizes reduced and its choices kept."""

import json
from pathlib import Path

import pytest

from ramflow.settings import HeadSettings, TrainSettings, read_settings
from ramflow.stage import execute
from tests.train.conftest import TRAIN

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
STEPS = 3


def shrunk(recipe: TrainSettings) -> TrainSettings:
    """Sizes, places and intervals of the tests; all else as the recipe has it."""
    sizes = {
        "epochs": 1, "batch": 4, "micro_batch": 2 if recipe.micro_batch else 0, "slice": 3,
        "device": "cpu", "workers": 0, "warmup_steps": 2,
        "validate_every": STEPS, "checkpoint_every": STEPS, "log_every": 1, "monitor_every": 1,
    }  # fmt: skip
    head = HeadSettings(hidden=16, layers=1, heads=2, feed_forward=32, dropout=recipe.head.dropout)
    return TrainSettings(**{**dict(recipe), **sizes, "head": head})


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_three_steps_of_a_recipe(path, inputs, tmp_path):
    recipe = read_settings(path).train
    settings = shrunk(recipe)
    for name in ("precision", "residual", "recompute", "balance", "learning_rate_rule", "ema_decay", "missing_tags"):
        assert getattr(settings, name) == getattr(recipe, name)
    out = tmp_path / "out"
    execute(TRAIN, settings, inputs, str(out))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert len(steps) == STEPS and all(row["accepted"] for row in steps)
    assert bool(recipe.ema_decay) == any("ema_mAP" in row for row in rows)
    assert (out / "model" / "model.safetensors").exists()
