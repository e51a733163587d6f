"""The public code's figures (reference/golden/ram_plus_tiny.json) and a model filled by their rule."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ramflow.model.encoder import Swin
from ramflow.model.losses import Wanted
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from ramflow.weights.upstream import ramflow_name

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "ram_plus_tiny.json"


def load() -> dict:
    if not GOLDEN.exists():
        pytest.skip("the public code's figures are not here (../shared is absent)")
    return json.loads(GOLDEN.read_text())


def _fill(index: int, key: str, shape: list[int]) -> torch.Tensor:
    v = np.random.RandomState(1000 + index).standard_normal(shape)
    lower = key.lower()
    if key == "reweight_scale":
        v = np.array(math.log(1 / 0.07))
    elif key == "label_embed":
        v = v / np.linalg.norm(v, axis=-1, keepdims=True)
    elif lower.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        v = 1 + 0.05 * v
    elif key.startswith(("tagging_head", "wordvec_proj", "fc.")):
        v = 0.12 * v
    else:
        v = 0.05 * v
    return torch.from_numpy(np.asarray(v)).float()


def state_dict(golden: dict) -> dict[str, torch.Tensor]:
    """The public model's parameters and embeddings, under its names."""
    return {key: _fill(i, key, shape) for i, (key, shape) in enumerate(sorted(golden["keys"]))}


def encoder(golden: dict) -> Swin:
    """The public model's encoder, freshly initialised."""
    m = golden["model"]
    options = {k: m[k] for k in ("embed_dim", "depths", "num_heads", "window_size")} | {"img_size": m["image_size"]}
    return Swin("swin_tiny_patch4_window7_224", options)


def model(golden: dict) -> RamPlus:
    """ramflow's model with these parameters."""
    m, state = golden["model"], state_dict(golden)
    embeddings = state.pop("label_embed").view(m["tags"], m["descriptions_per_tag"], -1)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    ram = RamPlus(encoder(golden), HeadSettings(dropout=0.0), embeddings, mask)
    ram.load_state_dict({ramflow_name(key): value for key, value in state.items()})
    return ram


def inputs(golden: dict) -> dict[str, torch.Tensor]:
    """The batch; floating point in double precision."""
    caption = np.random.RandomState(4).standard_normal((4, 512))
    return {
        "images": torch.from_numpy(np.random.RandomState(1).standard_normal((4, 3, 224, 224))).double(),
        "targets": torch.from_numpy(np.random.RandomState(2).random_sample((4, 12)) < 0.25),
        "teacher": torch.from_numpy(0.3 * np.random.RandomState(3).standard_normal((4, 512))).double(),
        "captions": torch.from_numpy(caption / np.linalg.norm(caption, axis=-1, keepdims=True)).double(),
    }


def wanted(golden: dict, rows: slice = slice(None)) -> Wanted:
    """What the batch should give; of some of its images, against the captions of all."""
    batch, ids = inputs(golden), torch.arange(1, 5)
    valid = torch.ones(4, dtype=torch.bool)[rows]
    return Wanted(batch["targets"][rows], batch["teacher"][rows], valid, ids[rows], batch["captions"], ids)
