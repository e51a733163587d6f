"""Scores of a split: every readable image against every tag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.model.preprocessing import Preprocessing, to_pixels
from ramflow.model.ram_plus import RamPlus
from ramflow.progress import track


@dataclass(frozen=True)
class Scores:
    """What a model says of images, and what is true of them."""

    scores: npt.NDArray[np.float32]
    """Probabilities [images, tags]."""
    targets: npt.NDArray[np.bool_]
    """[images, tags]."""
    samples: list[int]
    """Sample number of each row."""
    unreadable: list[str]
    """Paths of images that could not be decoded, and have no row (F40)."""


@torch.no_grad()
def score(
    model: RamPlus,
    preprocessing: Preprocessing,
    dataset: Dataset,
    samples: npt.NDArray[np.int64],
    batch: int,
    label: str,
) -> Scores:
    """Score the images of ``samples``, ``batch`` at a time, in float32; an empty ``label`` shows no progress."""
    was_training, device = model.training, model.embeddings.device
    model.eval()
    parts: list[npt.NDArray[np.float32]] = []
    scored: list[int] = []
    unreadable: list[int] = []
    for images, numbers in _batches(preprocessing, dataset, samples, batch, label, unreadable):
        parts.append(torch.sigmoid(model(preprocessing.normalise(images.to(device))).float()).cpu().numpy())
        scored += numbers
    model.train(was_training)
    tags = len(dataset.tags)
    scores = np.concatenate(parts) if parts else np.zeros((0, tags), np.float32)
    return Scores(scores, targets_of(dataset, scored), scored, image_paths(dataset, unreadable))


def targets_of(dataset: Dataset, samples: Sequence[int]) -> npt.NDArray[np.bool_]:
    """True where a sample has a tag [samples, tags]."""
    targets = np.zeros((len(samples), len(dataset.tags)), dtype=bool)
    for row, sample in enumerate(samples):
        targets[row, dataset.union_tags(sample)] = True
    return targets


def image_paths(dataset: Dataset, samples: Sequence[int]) -> list[str]:
    """``image_path`` of each sample, for messages; a few milliseconds a sample."""
    rows = (dataset.scan().slice(sample, 1).select("image_path") for sample in samples)
    return [row.collect().item() for row in rows]


def _batches(
    preprocessing: Preprocessing,
    dataset: Dataset,
    samples: npt.NDArray[np.int64],
    batch: int,
    label: str,
    unreadable: list[int],
) -> Iterator[tuple[torch.Tensor, list[int]]]:
    images: list[torch.Tensor] = []
    numbers: list[int] = []
    numbered = samples.tolist()
    for sample in track(numbered, label, len(numbered)) if label else numbered:
        try:
            image = decode_rgb(dataset.image(sample))
        except ImageFault:
            unreadable.append(sample)
            continue
        images.append(to_pixels(preprocessing.resize(image)))
        numbers.append(sample)
        if len(images) == batch:
            yield torch.stack(images), numbers
            images, numbers = [], []
    if images:
        yield torch.stack(images), numbers
