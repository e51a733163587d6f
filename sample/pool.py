"""The pool: pictures outside the sample, decoded once and kept in memory, with their keywords and texts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from choose import ICON_THEMES, STARS, clean_title, fraction
from openclipart import Picture, difference_hash, load_rgb, png_file, read_picture
from PIL import Image
from torch import Tensor
from torch.nn import functional

STORED, SIZE = 144, 128  # pixels a side: kept in memory, given to a model
STAR_CAP, ICON_CAP, HELD_OUT = 60, 500, 0.05
MIN_PICTURES = 5  # a keyword with fewer pictures is no class
JUNK = frozenset(
    ("hash", "11", "openclipart", "magick", "unsorted", "special", "architetto francesco rollandin", "lovecraft")
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass
class Part:
    """One part of the pool: `pictures`, and their pixels as uint8 [n, 3, STORED, STORED] (squashed to a square)."""

    pictures: list[Picture]
    pixels: Tensor

    def labels(self, keywords: list[str]) -> Tensor:
        """[n, len(keywords)], 1.0 where a picture has the keyword."""
        ids = {word: index for index, word in enumerate(keywords)}
        table = torch.zeros(len(self.pictures), len(keywords))
        for row, picture in enumerate(self.pictures):
            for word in picture.keywords:
                if word in ids:
                    table[row, ids[word]] = 1.0
        return table


def usable_keywords(picture: Picture) -> list[str]:
    """A picture's keywords without the archive's own junk."""
    return [word for word in picture.keywords if word not in JUNK and "0x" not in word]


def texts(picture: Picture) -> list[str]:
    """Its cleaned title and description, those that say anything."""
    found = [clean_title(picture.title), clean_title(picture.description)]
    return [text for text in dict.fromkeys(found) if len(text) > 2]


def capped(pictures: list[Picture], seed: int) -> list[Picture]:
    """The pool with computed stars and icon themes cut down, and without pictures that carry no keyword."""
    left = {"star": STAR_CAP, "icon": ICON_CAP}
    kept = []
    for picture in sorted(pictures, key=lambda p: fraction(seed, "pool", p.path)):
        words = set(picture.keywords)
        kind = "star" if words & STARS else "icon" if words & ICON_THEMES else ""
        if not usable_keywords(picture) or left.get(kind, 1) <= 0:
            continue
        if kind:
            left[kind] -= 1
        kept.append(picture)
    return kept


def load(root: Path, pool_file: Path, seed: int) -> tuple[Part, Part]:
    """(training part, held-out part); no training picture looks like a held-out one."""
    paths = pool_file.read_text(encoding="utf-8").split("\n")
    pictures = capped([read_picture(root / "svg" / f"{path}.svg", path) for path in paths if path], seed)
    squares, looks = [], []
    for picture in pictures:
        image = load_rgb(png_file(root, picture.path), 2 * STORED)
        looks.append(difference_hash(image))
        squares.append(np.asarray(image.resize((STORED, STORED), Image.Resampling.BICUBIC)))
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
    held = [fraction(seed, "held out", p.path) < HELD_OUT for p in pictures]
    seen = {look for look, out in zip(looks, held, strict=True) if out}
    test = [i for i, out in enumerate(held) if out]
    train = [i for i, out in enumerate(held) if not out and looks[i] not in seen]
    return Part([pictures[i] for i in train], pixels[train]), Part([pictures[i] for i in test], pixels[test])


def frequent_keywords(part: Part) -> list[str]:
    """Keywords of at least MIN_PICTURES pictures, alphabetically."""
    counts = Counter(word for picture in part.pictures for word in usable_keywords(picture))
    return sorted(word for word, count in counts.items() if count >= MIN_PICTURES)


def normalised(pixels: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """uint8 or 0..255 pixels as a model takes them: (x / 255 - mean) / deviation."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics)
    return (pixels.float() / 255 - mean) / deviation


def augmented(pixels: Tensor, smallest: float, draw: torch.Generator) -> Tensor:
    """Random resized crop (area from `smallest` to 1) and flip of a uint8 batch, as float 0..255 at SIZE pixels."""
    count = len(pixels)
    area = torch.empty(count).uniform_(smallest, 1, generator=draw)
    ratio = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=draw).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.randint(0, 2, (count,), generator=draw) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = (1 - width) * torch.empty(count).uniform_(-1, 1, generator=draw)
    theta[:, 1, 2] = (1 - height) * torch.empty(count).uniform_(-1, 1, generator=draw)
    grid = functional.affine_grid(theta, [count, 3, SIZE, SIZE], align_corners=False)
    return functional.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def resized(pixels: Tensor) -> Tensor:
    """A uint8 batch at SIZE pixels, without augmentation."""
    smaller = functional.interpolate(pixels.float(), (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
    return smaller.clamp(0, 255)


def parameter_groups(model: torch.nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only, not on norms, biases and single numbers."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 5 % of the steps, then a cosine to zero."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def mean_average_precision(scores: Tensor, labels: Tensor, fewest: int = 1) -> dict[str, float]:
    """Mean over the columns with at least `fewest` positives of the average precision, and of the prevalence."""
    precisions, prevalences = [], []
    for score, label in zip(scores.T, labels.T, strict=True):
        if label.sum() < fewest:
            continue
        hits = label[score.argsort(descending=True, stable=True)]
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
        precisions.append((precision * hits).sum() / hits.sum())
        prevalences.append(label.mean())
    count = len(precisions)
    return {
        "keywords": count,
        "map": round(float(sum(precisions)) / count, 4),
        "frequency_baseline_map": round(float(sum(prevalences)) / count, 4),
    }
