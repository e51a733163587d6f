"""The public code's figures (reference/golden/ram_plus_tiny.json) and a model filled by their rule."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ramflow.model.encoder import Swin
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "ram_plus_tiny.json"


def load() -> dict:
    if not GOLDEN.exists():
        pytest.skip("the public code's figures are not here (../shared is absent)")
    return json.loads(GOLDEN.read_text())


def name_in_ramflow(key: str) -> str:
    """Our name for a parameter of the public code."""
    if key.startswith("visual_encoder.layers."):
        parts = key.split(".")
        if parts[3] == "downsample":  # timm keeps the downsampling with the stage that follows
            parts[2] = str(int(parts[2]) + 1)
        return "encoder.swin." + ".".join(parts[1:])
    for theirs, ours in (
        ("visual_encoder.", "encoder.swin."),
        ("reweight_scale", "reweighting.scale"),
        ("image_proj.", "image_projection."),
        ("wordvec_proj.", "head.project."),
        ("fc.", "head.logit."),
        ("tagging_head.encoder.layer.", "head.layers."),
    ):
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            break
    for theirs, ours in (
        (".crossattention.self.", ".attention."),
        (".crossattention.output.dense.", ".attention.output."),
        (".crossattention.output.LayerNorm.", ".attention_norm."),
        (".intermediate.dense.", ".expand."),
        (".output.LayerNorm.", ".output_norm."),
    ):
        key = key.replace(theirs, ours)
    return key.replace(".output.dense.", ".contract.")


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


def model(golden: dict) -> RamPlus:
    m = golden["model"]
    options = {k: m[k] for k in ("embed_dim", "depths", "num_heads", "window_size")} | {"img_size": m["image_size"]}
    state = {key: _fill(i, key, shape) for i, (key, shape) in enumerate(sorted(golden["keys"]))}
    embeddings = state.pop("label_embed").view(m["tags"], m["descriptions_per_tag"], -1)
    encoder = Swin("swin_tiny_patch4_window7_224", options)
    ram = RamPlus(encoder, HeadSettings(dropout=0.0), embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))
    ram.load_state_dict({name_in_ramflow(key): value for key, value in state.items()})
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
