"""A tiny engine and batches of noise for it, the same in every process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings, TrainSettings
from ramflow.train.samples import Batch
from ramflow.train.schedule import make_optimizer
from ramflow.train.step import Engine, TagTargets
from tests.train import artifacts

TAGS, DESCRIPTIONS, WIDTH, SIZE = 9, 3, artifacts.WIDTH, 32
OPEN = (float("inf"),) * 4
WEIGHTS = (1.0, 0.7, 2.0)


class Pooled(nn.Module):
    """A teacher: the image, pooled."""

    width = WIDTH

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [batch, width] of uint8 pixels [batch, 3, size, size]."""
        return nn.functional.adaptive_avg_pool1d(pixels.float().flatten(1)[:, None] / 255, self.width)[:, 0]


def settings(**changes) -> TrainSettings:
    """Of a batch of 52, without dropout: draws follow the process and the micro-batch."""
    head = HeadSettings(hidden=16, layers=2, heads=2, feed_forward=32, dropout=0.0)
    return artifacts.settings(**{"batch": 52, "drop_path": 0.0, "head": head, **changes})


def engine(given: TrainSettings, masked: Sequence[int] = (), floor: torch.Tensor | None = None) -> Engine:
    """Weights by the seed of the settings."""
    torch.manual_seed(given.seed)
    encoder = Swin(artifacts.ENCODER, artifacts.OPTIONS, given.drop_path)
    embeddings = nn.functional.normalize(torch.randn(TAGS, DESCRIPTIONS, WIDTH), dim=-1)
    model = RamPlus(encoder, given.head, embeddings, torch.ones(TAGS, DESCRIPTIONS, dtype=torch.bool)).train()
    mask = torch.ones(TAGS, dtype=torch.bool)
    mask[list(masked)] = False
    looks = Preprocessing(SIZE, encoder.mean, encoder.std)
    return Engine(model, Pooled(), looks, TagTargets(mask, floor), make_optimizer(model, given), given)


def batch(images: int, seed: int = 3) -> Batch:
    """Noise with tags; every fifth image has the caption of the first, every seventh has none."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)
    captions = nn.functional.normalize(torch.randn(images, WIDTH, generator=random), dim=-1)
    ids = torch.arange(1, images + 1)
    captions[::5], ids[::5] = captions[0].clone(), ids[0].clone()
    captions[3::7], ids[3::7] = 0, 0
    targets = torch.rand(images, TAGS, generator=random) < 0.3
    return Batch(torch.arange(images), pixels, pixels, targets, captions, ids)


def share(whole: Batch, rank: int, world: int) -> Batch:
    """What one of some processes has of a batch."""
    return whole.mapped(lambda tensor: tensor[rank::world])


def gradients(given: Engine) -> dict[str, torch.Tensor]:
    """The gradient that the last step left, by name."""
    return {name: p.grad.clone() for name, p in given.model.named_parameters()}


def close(ours: dict[str, torch.Tensor], whole: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    """Assert that every gradient is the same, relative to its norm."""
    for name, gradient in whole.items():
        if name.endswith("key.bias"):  # zero but for rounding: what is added to every key changes no attention
            assert ours[name].norm() < 1e-5
            continue
        assert gradient.norm() > 0, name
        assert (ours[name] - gradient).norm() <= tolerance * gradient.norm(), name
