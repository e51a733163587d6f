"""A small Swin in timm's layout, pretrained as a multi-label classifier of the pool's keywords."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pool
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

NAME = "swin_tiny_patch4_window7_224"
OPTIONS = {
    "img_size": pool.SIZE, "window_size": 4, "embed_dim": 32, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8),
}
BATCH, RATE, DECAY, DROP_PATH, SMALLEST_CROP = 32, 1e-3, 0.05, 0.05, 0.35


def create(classes: int, drop_path: float = 0.0) -> nn.Module:
    """The architecture; `classes` outputs."""
    return timm.create_model(NAME, num_classes=classes, drop_path_rate=drop_path, **OPTIONS)


def train(part: pool.Part, keywords: list[str], epochs: int, seed: int) -> nn.Module:
    """Train on a part of the pool; binary cross-entropy summed over keywords, AdamW, cosine."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    model = create(len(keywords), DROP_PATH)
    labels = part.labels(keywords)
    nn.init.constant_(model.head.fc.bias, -4.0)
    steps = epochs * (len(labels) // BATCH)
    optimiser = torch.optim.AdamW(pool.parameter_groups(model, DECAY), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: pool.rate_factor(step, steps))
    started = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels), generator=draw).split(BATCH):
            if len(rows) < BATCH:
                continue
            images = pool.normalised(pool.augmented(part.pixels[rows], SMALLEST_CROP, draw), pool.IMAGENET)
            loss = functional.binary_cross_entropy_with_logits(model(images), labels[rows], reduction="sum") / BATCH
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"swin epoch {epoch + 1}/{epochs} loss {total / (len(labels) // BATCH):.3f} "
              f"{time.monotonic() - started:.0f} s", flush=True)
    return model


def save(model: nn.Module, keywords: list[str], folder: Path) -> None:
    """model.safetensors (float16, timm's keys), config.json, labels.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    mean, deviation = pool.IMAGENET
    config = {
        "architecture": NAME, "num_classes": len(keywords), "model_args": OPTIONS, "dtype": "float16",
        "labels": "labels.txt",
        "pretrained_cfg": {"input_size": [3, pool.SIZE, pool.SIZE], "mean": mean, "std": deviation,
                           "interpolation": "bicubic", "crop_pct": 1.0, "classifier": "head.fc"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(keywords) + "\n", encoding="utf-8")


def load(folder: Path) -> nn.Module:
    """The saved model in float32, every key matched."""
    weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
    model = create(len(weights["head.fc.bias"]))
    model.load_state_dict(weights, strict=True)
    return model.eval()


@torch.inference_mode()
def scores(model: nn.Module, part: pool.Part) -> Tensor:
    """Logits [pictures, keywords] without augmentation."""
    batches = part.pixels.split(128)
    return torch.cat([model(pool.normalised(pool.resized(batch), pool.IMAGENET)) for batch in batches])


def figures(folder: Path, part: pool.Part, keywords: list[str]) -> dict[str, object]:
    """Held-out figures of the files as saved."""
    logits, labels = scores(load(folder), part), part.labels(keywords)
    return {
        "held_out_pictures": len(part.pictures),
        "any_positive": pool.mean_average_precision(logits, labels),
        "three_positives": pool.mean_average_precision(logits, labels, 3),
    }
