"""The gallery: test images with what is true of them and what the model says."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.errors import UserError
from ramflow.report.artifacts import Run, reading

SCORES_FILE = "scores.safetensors"
PER_TAG_FILE = "per_tag.parquet"
THUMBNAIL = 320  # pixels of the longer side
QUALITY = 80
MOST_TAGS = 10  # named in each of the three lists of a picture


@dataclass(frozen=True)
class Said:
    """A tag of a picture and its score, as a percentage."""

    name: str
    percent: int


@dataclass(frozen=True)
class Picture:
    """One test image: hits are true and said, missed are true and not said, extra are said and not true."""

    why: str
    caption: str
    key: str
    image: str
    width: int
    height: int
    agreement: str
    lists: list[tuple[str, list[Said], int]]


def gallery(run: Run, shown: int) -> list[Picture]:
    """A mix of test images that only the scores decide: a share of the best and worst, the rest evenly spaced.

    Args:
        run: the run, evaluated.
        shown: how many images.

    Raises:
        UserError: the scores are damaged or of another dataset, or an image cannot be read any more.
    """
    path = run.paths["evaluate"] / SCORES_FILE
    tags = run.table("evaluate", PER_TAG_FILE, ["id", "name", "threshold"]).sort("id")
    with reading(path):
        tensors = load_file(path)
        scores, targets, samples = tensors["scores"], tensors["targets"].astype(bool), tensors["samples"]
        if scores.shape != targets.shape or scores.shape != (len(samples), len(tags)):
            raise ValueError(f"scores {scores.shape} for {len(samples)} samples and {len(tags)} tags")
        if len(samples) and not 0 <= samples.min() <= samples.max() < len(run.dataset):
            raise ValueError("samples that the dataset does not have")
    said = scores >= tags["threshold"].fill_null(np.inf).to_numpy()
    agreement = f1_by_image(said, targets)
    chosen = choose(agreement, (said | targets).sum(axis=1), shown)
    return [
        _picture(run.dataset, int(samples[i]), why, tags, scores[i], said[i], targets[i], agreement[i])
        for i, why in chosen
    ]


def f1_by_image(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Agreement of what is said and what is true of each image, [images], 0 to 1; nothing of nothing is 1."""
    both, either = (said & true).sum(axis=1), said.sum(axis=1) + true.sum(axis=1)
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


def choose(agreement: NDArray[np.float64], tags: NDArray[np.int64], shown: int) -> list[tuple[int, str]]:
    """Rows to show and why, in order: a sixth the best, a sixth the worst, and evenly spaced ones of the others.

    Args:
        agreement: of each image, [images].
        tags: how many tags are true or said of it, [images]; of equal images, the one with more tags is shown.
        shown: how many rows.
    """
    share = shown // 6 if len(agreement) > shown else 0
    by_worth = sorted(range(len(agreement)), key=lambda i: (-agreement[i], -tags[i], i))
    best = by_worth[:share]
    worst = sorted(set(by_worth) - set(best), key=lambda i: (agreement[i], -tags[i], i))[:share]
    others = [i for i in range(len(agreement)) if i not in {*best, *worst}]
    count = min(shown - 2 * share, len(others))
    spaced = [others[k * len(others) // count] for k in range(count)]
    return [(i, "best") for i in best] + [(i, "") for i in spaced] + [(i, "worst") for i in worst]


def _picture(
    dataset: Dataset,
    sample: int,
    why: str,
    tags: pl.DataFrame,
    scores: NDArray[np.float32],
    said: NDArray[np.bool_],
    true: NDArray[np.bool_],
    agreement: float,
) -> Picture:
    row = dataset.scan().slice(sample, 1).select("key", "captions").collect().row(0, named=True)
    try:
        uri, width, height = thumbnail(dataset, sample, THUMBNAIL)
    except ImageFault as fault:
        place = f"{dataset.directory / dataset.shard_of(sample).name}: {row['key']}"
        raise UserError(f"{place} is no image any more ({fault}): fetch or pack the dataset again") from None
    lists = [(word, *_said(tags, scores, which)) for word, which in
             (("hit", said & true), ("missed", true & ~said), ("extra", said & ~true))]  # fmt: skip
    caption = next((text for text in row["captions"] if text.strip()), "")
    return Picture(why, caption, row["key"], uri, width, height, f"{agreement:.2f}", lists)


def _said(tags: pl.DataFrame, scores: NDArray[np.float32], which: NDArray[np.bool_]) -> tuple[list[Said], int]:
    """The tags with the highest scores first, and how many more there are."""
    order = sorted(np.flatnonzero(which).tolist(), key=lambda t: (-scores[t], t))
    named = [Said(tags["name"][t], round(100 * float(scores[t]))) for t in order[:MOST_TAGS]]
    return named, len(order) - len(named)


def thumbnail(dataset: Dataset, sample: int, side: int) -> tuple[str, int, int]:
    """An image as a data URI of at most ``side`` pixels, its width and its height.

    Raises:
        ImageFault: it cannot be decoded.
        UserError: its shard is gone or cut off.
    """
    image = decode_rgb(dataset.image(sample))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return uri, image.width, image.height
