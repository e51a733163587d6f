"""Training samples: which image comes when, and what a batch holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.data.vectors import CaptionVectors
from ramflow.errors import UserError
from ramflow.model.preprocessing import to_pixels
from ramflow.settings import TrainSettings
from ramflow.train.augment import augment, generator

Request = tuple[int, int]
"""Epoch and row of a sample."""


@dataclass(frozen=True)
class Batch:
    """Images of a step and what is known of them."""

    pixels: torch.Tensor
    """uint8 [batch, 3, size, size], augmented."""
    targets: torch.Tensor
    """Bool [batch, tags]."""
    captions: torch.Tensor
    """Vector of one caption an image [batch, width]; zeros where there is none."""
    has_caption: torch.Tensor
    """Bool [batch]."""


class TrainingSamples(TorchDataset[tuple[torch.Tensor, ...]]):
    """The training split; an item is a function of (seed, epoch, row) and nothing else."""

    def __init__(
        self, dataset: Dataset, rows: pl.DataFrame, captions: CaptionVectors, size: int, settings: TrainSettings
    ) -> None:
        """Take ``rows`` of the manifest (with the column ``sample``) for training at ``size`` pixels."""
        self.dataset = dataset
        self.rows = rows
        self.captions = captions
        self.size = size
        self.settings = settings
        self.tags = len(dataset.tags)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: Request) -> tuple[torch.Tensor, ...]:
        """Pixels, targets, caption vector and whether there is a caption.

        Raises:
            UserError: the image cannot be decoded, although the audit could.
        """
        epoch, number = request
        row = self.rows.row(number, named=True)
        random = generator(self.settings.seed, epoch, row["sample"])
        try:
            image = decode_rgb(self.dataset.read(row["shard"], row["offset"], row["length"]))
        except ImageFault as fault:
            raise UserError(f"{row['image_path']} changed since the audit ({fault}): run audit again") from None
        caption, has_caption = self._caption(row, random)
        view = augment(image, self.size, self.settings.augment, random)
        targets = torch.zeros(self.tags, dtype=torch.bool)
        targets[row["union_tags"]] = True
        return to_pixels(view), targets, caption, torch.tensor(has_caption)

    def _caption(self, row: dict[str, object], random: np.random.Generator) -> tuple[torch.Tensor, bool]:
        texts = row["captions"]
        assert isinstance(texts, list) and isinstance(row["sample"], int)
        full = [i for i, text in enumerate(texts) if text.strip()]
        if not full:
            return torch.zeros(self.captions.width), False
        return self.captions.of(row["sample"])[full[int(random.integers(len(full)))]], True


def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """Every row once, in an order that is a function of (seed, epoch)."""
    return np.random.default_rng((seed, epoch)).permutation(samples)


def requests(samples: int, settings: TrainSettings, start: int) -> Iterator[list[Request]]:
    """The batches of the run from step ``start`` (from 0) on: every sample exactly once an epoch (F29)."""
    steps = steps_per_epoch(samples, settings.batch)
    for step in range(start, settings.epochs * steps):
        epoch, position = divmod(step, steps)
        order = epoch_order(samples, settings.seed, epoch)
        yield [(epoch, int(n)) for n in order[position * settings.batch : (position + 1) * settings.batch]]


def steps_per_epoch(samples: int, batch: int) -> int:
    """Steps an epoch; the last one may be smaller."""
    return -(-samples // batch)


def batches(samples: TrainingSamples, start: int) -> Iterator[Batch]:
    """The batches of the run from step ``start`` on, decoded by ``settings.workers`` processes."""
    settings = samples.settings
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
        samples,
        batch_sampler=list(requests(len(samples), settings, start)),
        num_workers=settings.workers,
        multiprocessing_context="spawn" if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for items in loader:
        yield Batch(*items)
