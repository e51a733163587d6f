"""Upstream's training transform in plain steps, from its description: Pillow and torchvision, a picture at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import RandomResizedCrop

from ramflow.train.augment import Plan

GREY = 128


def moved(image: Image.Image, move: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Every channel moved as fractions and then rounded, as OpenCV does; Pillow cuts the fractions of bytes off."""
    channels = [np.asarray(move(channel.convert("F"))).round().astype(np.uint8) for channel in image.split()]
    return Image.fromarray(np.dstack(channels))


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    how = (image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return moved(image, lambda channel: channel.transform(*how, fillcolor=GREY))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    return moved(image, lambda channel: channel.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY))


OPERATIONS = {
    "identity": lambda image, s: image,
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * abs(s)),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * abs(s)),
    "shear_x": lambda image, s: affine(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: affine(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda image, s: affine(image, 1, 0, 10 * s, 0, 1, 0),
    "translate_y": lambda image, s: affine(image, 1, 0, 0, 0, 1, 10 * s),
    "rotate": lambda image, s: rotate(image, 30 * s),
}


def carry_out(image: Image.Image, plan: Plan, size: int) -> Image.Image:
    """Crop, resize, mirror, then the operations."""
    view = image.crop(plan.box).resize((size, size), Image.Resampling.BICUBIC)
    view = ImageOps.mirror(view) if plan.flip else view
    for name, strength in plan.operations:
        view = OPERATIONS[name](view, strength)
    return view


def draw(width: int, height: int, min_scale: float, random: np.random.Generator) -> Plan:
    """The crop is torchvision's (of torch's own random stream), the rest as upstream's recipe says."""
    image = torch.empty(3, height, width)
    top, left, h, w = RandomResizedCrop.get_params(image, [min_scale, 1.0], [3 / 4, 4 / 3])
    operations = tuple(
        (str(name), 0.5 if random.random() < 0.5 else -0.5)
        for name in random.choice(list(OPERATIONS), 2)
        if random.random() < 0.5
    )
    return Plan((left, top, left + w, top + h), bool(random.random() < 0.5), operations)
