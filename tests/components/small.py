"""A run of all stages so small that a test can make it: two training steps on the shared pictures of shapes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TAGS

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "sample" / "models" / "clip"
WEIGHTS = ROOT / "sample" / "models" / "swin" / "model.safetensors"

needs_models = pytest.mark.skipif(not WEIGHTS.is_file(), reason="sample/models is not here: git checkout sample/models")

PARAMS: dict[str, dict[str, Any]] = {
    "audit": {"rare_below": 2, "max_missing_tags_share": 0.2, "workers": 1},
    "embed": {"batch": 64},
    "verify": {
        **yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["verify"],
        "probe_images": 8,
        "min_probe_ratio": 0.0,  # pictures of shapes say nothing about weights that learnt clip art
    },
    "train": {
        "epochs": 1,
        "batch": 6,
        "precision": "float32",
        "device": "cpu",
        "warmup_steps": 1,
        "workers": 0,
        "head": {"hidden": 16, "layers": 1, "heads": 2, "feed_forward": 16},
    },
    "evaluate": {"device": "cpu", "min_ratio_to_frequency": 0.0},
    "report": {"title": "a small run", "gallery": 4},
}


def write_descriptions(path: Path) -> Path:
    """Upstream's description JSON for the tags of the shared pictures."""
    objects = [{tag: [f"a photo of a {tag}.", f"drawing of a {tag}"]} for tag in TAGS]
    path.write_text(json.dumps(objects), encoding="utf-8")
    return path
