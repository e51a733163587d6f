"""Training augmentation as a function of (seed, epoch, sample): one decode, one crop, no shared stream (F17, F30).

Upstream's recipe: a random resized crop, a flip, then RandAugment with two of ten operations at magnitude 5 of 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ramflow.settings import AugmentSettings

RATIOS = (3 / 4, 4 / 3)
CROP_TRIES = 10
MAX_MAGNITUDE = 10
FILL = (128, 128, 128)

Operation = Callable[[Image.Image, float], Image.Image]


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random stream of one sample in one epoch, the same in any process."""
    return np.random.default_rng((seed, epoch, sample))


def augment(image: Image.Image, size: int, settings: AugmentSettings, random: np.random.Generator) -> Image.Image:
    """A training view [size x size pixels] of an RGB image."""
    box = random_crop(image.width, image.height, settings.min_scale, random)
    view = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if settings.flip and random.random() < 0.5:
        view = ImageOps.mirror(view)
    names = list(OPERATIONS)
    for index in random.integers(len(names), size=settings.operations):
        sign = 1.0 if random.random() < 0.5 else -1.0
        view = OPERATIONS[names[index]](view, sign * settings.magnitude / MAX_MAGNITUDE)
    return view


def random_crop(
    width: int, height: int, min_scale: float, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box (left, top, right, bottom) of a share of the area in [min_scale, 1] and an aspect in 3/4..4/3.

    When ten draws do not fit the image, the largest central box whose aspect is in that range.
    """
    low, high = RATIOS
    for _ in range(CROP_TRIES):
        area = width * height * random.uniform(min_scale, 1)
        ratio = math.exp(random.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * high)), min(height, round(width / low))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


def _factor(strength: float) -> float:
    return 0.1 + 1.8 * abs(strength)


# Strength is magnitude / 10 with a random sign; enhancements have no sign.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, s: image,
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(_factor(s)),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(_factor(s)),
    "shear_x": lambda image, s: _affine(image, (1, 0.3 * s, 0, 0, 1, 0)),
    "shear_y": lambda image, s: _affine(image, (1, 0, 0, 0.3 * s, 1, 0)),
    "translate_x": lambda image, s: _affine(image, (1, 0, 10 * s, 0, 1, 0)),
    "translate_y": lambda image, s: _affine(image, (1, 0, 0, 0, 1, 10 * s)),
    "rotate": lambda image, s: image.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=FILL),
}
