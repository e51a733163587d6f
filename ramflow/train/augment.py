"""Training augmentation as a function of (seed, epoch, sample): one decode, one crop, no shared stream (F17, F30).

Upstream's recipe: a random resized crop, a flip, then RandAugment: two of ten operations at magnitude 5 of 10, each
carried out half of the time. All that is random is drawn first, as a plan; the plan is carried out at every size that
is wanted, so that student and teacher see the same picture. Views are planes of bytes, as models take them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample, interpolate

from ramflow.settings import AugmentSettings
from ramflow.train.decode import Pixels

RATIOS = (3 / 4, 4 / 3)
CROP_TRIES = 10
MAX_MAGNITUDE = 10
CARRIED_OUT = 0.5
"""How often an operation that was drawn is carried out."""
FILL = 128
"""What comes into the picture where it is moved away."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

Views = list[torch.Tensor]
"""One picture at several sizes, the student's first: uint8 [3, size, size] each."""

Plane = npt.NDArray[np.uint8]
"""One colour of a view [size, size]."""

Operation = Callable[[Views, float], Views]
"""Views and a strength of -1 to 1; enhancements have no sign."""


@dataclass(frozen=True)
class Plan:
    """What is done to one image."""

    box: Box
    flip: bool
    operations: tuple[tuple[str, float], ...]
    """Name and strength, in order."""


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random stream of one sample in one epoch, the same in any process."""
    return np.random.default_rng((seed, epoch, sample))


def draw(width: int, height: int, settings: AugmentSettings, random: np.random.Generator) -> Plan:
    """Draw what is done to an image of ``width`` x ``height`` pixels."""
    box = random_crop(width, height, settings.min_scale, random)
    flip = settings.flip and random.random() < 0.5
    names, operations = list(OPERATIONS), []
    if settings.auto_contrast == "public":
        names[names.index("auto_contrast")] = PUBLIC_AUTO_CONTRAST
    for index in random.integers(len(names), size=settings.operations):
        carried_out, positive = random.random(2) < (CARRIED_OUT, 0.5)
        if carried_out:
            operations.append((names[index], (1 if positive else -1) * settings.magnitude / MAX_MAGNITUDE))
    return Plan(box, flip, tuple(operations))


def random_crop(width: int, height: int, min_scale: float, random: np.random.Generator) -> Box:
    """A box of a share of the area in [min_scale, 1] and an aspect in 3/4..4/3.

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


def views(pixels: Pixels, plan: Plan, sizes: Sequence[int]) -> Views:
    """Carry out ``plan`` at every size, the student's first; equal sizes are one view."""
    left, top, right, bottom = plan.box
    crop = torch.from_numpy(pixels)[top:bottom, left:right].permute(2, 0, 1)[None]
    result = [interpolate(crop, (size, size), mode="bicubic", antialias=True)[0] for size in dict.fromkeys(sizes)]
    if plan.flip:
        result = [view.flip(2) for view in result]
    for name, strength in plan.operations:
        result = (_public_auto_contrast if name == PUBLIC_AUTO_CONTRAST else OPERATIONS[name])(result, strength)
    return result


def _identity(views: Views, strength: float) -> Views:
    return views


def _auto_contrast(views: Views, strength: float) -> Views:
    return _through([_stretching(plane) for plane in views[0].numpy()], views)


def _public_auto_contrast(views: Views, strength: float) -> Views:
    return _through([_wrapping(plane) for plane in views[0].numpy()], views)


def _equalize(views: Views, strength: float) -> Views:
    return _through([_equalizing(plane) for plane in views[0].numpy()], views)


def _brightness(views: Views, strength: float) -> Views:
    factor = _factor(strength)
    return views if factor == 1 else _through([(factor * np.arange(256)).clip(0, 255)] * 3, views)


def _sharpness(views: Views, strength: float) -> Views:
    factor = _factor(strength)
    return views if factor == 1 else [_sharpened(view, factor) for view in views]


def _shear_x(views: Views, strength: float) -> Views:
    return _moved(views, ((1, 0.3 * strength, 0.3 * strength), (0, 1, 0)))


def _shear_y(views: Views, strength: float) -> Views:
    return _moved(views, ((1, 0, 0), (0.3 * strength, 1, 0.3 * strength)))


def _translate_x(views: Views, strength: float) -> Views:
    return _moved(views, ((1, 0, 2 * 10 * strength / views[0].shape[2]), (0, 1, 0)))


def _translate_y(views: Views, strength: float) -> Views:
    return _moved(views, ((1, 0, 0), (0, 1, 2 * 10 * strength / views[0].shape[1])))


def _rotate(views: Views, strength: float) -> Views:
    angle = math.radians(30 * strength)
    return _moved(views, ((math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0)))


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
}


PUBLIC_AUTO_CONTRAST = "public_auto_contrast"
"""In the place of ``auto_contrast`` where settings ask for the public code's fault."""


def _factor(strength: float) -> float:
    return 0.1 + 1.8 * abs(strength)


def _stretching(plane: Plane) -> npt.NDArray[np.float64]:
    """The table that takes the darkest value to 0 and the brightest to 255 [256]."""
    low, high = int(plane.min()), int(plane.max())
    if low == high:
        return np.arange(256.0)
    scale = 255 / (high - low)
    return (np.arange(256) * scale - low * scale).clip(0, 255)


def _wrapping(plane: Plane) -> npt.NDArray[np.float64]:
    """:func:`_stretching` as the public code has it: it negates the darkest value as a byte, and all turns white where
    that is not 0 (F47) [256]."""
    low, high = int(plane.min()), int(plane.max())
    if low == high:
        return np.arange(256.0)
    scale = 255 / (high - low)
    return (np.arange(256) * scale + -low % 256 * scale).clip(0, 255)


def _equalizing(plane: Plane) -> npt.NDArray[np.float64]:
    """The table that makes all values about as frequent [256]; the brightest one does not count, as in Pillow."""
    histogram = np.bincount(plane.ravel(), minlength=256)
    step = int(histogram.sum() - histogram[plane.max()]) // 255
    if step == 0:
        return np.arange(256.0)
    below = histogram.cumsum() - histogram
    return ((below + step // 2) // step).clip(0, 255).astype(np.float64)


def _through(tables: Sequence[npt.NDArray[np.float64]], views: Views) -> Views:
    """Every channel through its table [256]; fractions are cut off."""
    planes = [table.astype(np.uint8) for table in tables]
    return [
        torch.from_numpy(np.stack([table.take(plane) for table, plane in zip(planes, view.numpy(), strict=True)]))
        for view in views
    ]


def _sharpened(view: torch.Tensor, factor: float) -> torch.Tensor:
    """Away from the softened picture for factors above 1; pixels of the border have no softened value and stay."""
    image = view.to(torch.int16)
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    inner = image[:, 1:-1, 1:-1]
    soft = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner + 6) // 13
    result = view.clone()
    result[:, 1:-1, 1:-1] = (soft + factor * (inner - soft)).clamp(0, 255).to(torch.uint8)
    return result


def _moved(views: Views, matrix: Sequence[Sequence[float]]) -> Views:
    """Every pixel from the place that ``matrix`` gives, bilinear; places run from -1 to 1 over the picture."""
    return [_sampled(view, matrix) for view in views]


def _sampled(view: torch.Tensor, matrix: Sequence[Sequence[float]]) -> torch.Tensor:
    size = view.shape[-1]
    centres = torch.arange(1 - size, size, 2, dtype=torch.float32) / size
    places = torch.empty(2, size, size)
    for axis, (of_x, of_y, offset) in zip(places, matrix, strict=True):
        torch.add((of_y * centres + offset)[:, None], of_x * centres, out=axis)
    image = view[None].float().sub_(FILL)
    moved = grid_sample(image, places.permute(1, 2, 0)[None], "bilinear", "zeros", align_corners=False)[0]
    return torch.from_numpy(moved.add_(FILL + 0.5).numpy().astype(np.uint8))  # torch's own conversion is slow
