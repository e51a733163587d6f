"""Scores of a split: every readable image against every tag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
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
    model: RamPlus, preprocessing: Preprocessing, dataset: Dataset, rows: pl.DataFrame, batch: int, label: str
) -> Scores:
    """Score ``rows`` of the manifest (with the column ``sample``), ``batch`` images at a time, in float32."""
    was_training, device = model.training, model.embeddings.device
    model.eval()
    parts: list[npt.NDArray[np.float32]] = []
    samples: list[int] = []
    unreadable: list[str] = []
    for images, numbers in _batches(preprocessing, dataset, rows, batch, label, unreadable):
        parts.append(torch.sigmoid(model(preprocessing.normalise(images.to(device))).float()).cpu().numpy())
        samples += numbers
    model.train(was_training)
    tags = len(dataset.tags)
    scores = np.concatenate(parts) if parts else np.zeros((0, tags), np.float32)
    return Scores(scores, targets_of(rows, samples, tags), samples, unreadable)


def targets_of(rows: pl.DataFrame, samples: list[int], tags: int) -> npt.NDArray[np.bool_]:
    """True where a sample has a tag [samples, tags]."""
    row_of = {sample: i for i, sample in enumerate(samples)}
    targets = np.zeros((len(samples), tags), dtype=bool)
    for sample, ids in rows.select("sample", "union_tags").iter_rows():
        if sample in row_of:
            targets[row_of[sample], ids] = True
    return targets


def _batches(
    preprocessing: Preprocessing, dataset: Dataset, rows: pl.DataFrame, batch: int, label: str, unreadable: list[str]
) -> Iterator[tuple[torch.Tensor, list[int]]]:
    images: list[torch.Tensor] = []
    numbers: list[int] = []
    for row in track(rows.iter_rows(named=True), label, len(rows)):
        try:
            image = decode_rgb(dataset.read(row["shard"], row["offset"], row["length"]))
        except ImageFault:
            unreadable.append(row["image_path"])
            continue
        images.append(to_pixels(preprocessing.resize(image)))
        numbers.append(row["sample"])
        if len(images) == batch:
            yield torch.stack(images), numbers
            images, numbers = [], []
    if images:
        yield torch.stack(images), numbers
