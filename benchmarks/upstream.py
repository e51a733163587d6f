"""What a user does today: upstream's training transform, written here from its description.

Decode with PIL, torchvision's RandomResizedCrop (a share of 0.2 to 1, bicubic) and flip, then RandAugment on numpy
arrays with OpenCV: two of ten operations at strength 5 of 10, each carried out half of the time, then ToTensor and
Normalize. AutoContrast is the correct one, not the public code's that wraps around (F47).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import torch
from cv2.typing import MatLike
from PIL import Image
from torchvision import transforms

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
STRENGTH = 0.5
FACTOR = 0.1 + 1.8 * STRENGTH
"""Of brightness and sharpness; at this strength it is 1, which leaves the picture as it is."""
GREY = (128, 128, 128)


def decode(data: bytes) -> Image.Image:
    """The picture in a file."""
    return Image.open(BytesIO(data)).convert("RGB")


def transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """From a picture to a normalised float tensor [3, size, size]."""
    return transforms.Compose([
        transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        rand_augment,
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ])  # fmt: skip


def rand_augment(image: Image.Image) -> MatLike:
    """Two operations drawn at random, each applied with probability one half."""
    pixels = np.array(image)
    for number in np.random.randint(len(OPERATIONS), size=2):
        if np.random.random() <= 0.5:
            pixels = OPERATIONS[number](pixels)
    return pixels


def _auto_contrast(pixels: MatLike) -> MatLike:
    return cv2.merge([_stretched(channel) for channel in cv2.split(pixels)])


def _stretched(channel: MatLike) -> MatLike:
    low, high = int(channel.min()), int(channel.max())
    if high <= low:
        return channel
    table = (np.arange(256) - low) * (255 / (high - low))
    return table.clip(0, 255).astype(np.uint8)[channel]


def _equalize(pixels: MatLike) -> MatLike:
    return cv2.merge([_equalized(channel) for channel in cv2.split(pixels)])


def _equalized(channel: MatLike) -> MatLike:
    histogram = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel()
    step = histogram[histogram > 0][:-1].sum() // 255
    if step == 0:
        return channel
    before = np.concatenate([[step // 2], histogram[:-1]]).cumsum()
    return (before // step).clip(0, 255).astype(np.uint8)[channel]


def _brightness(pixels: MatLike) -> MatLike:
    table = (np.arange(256, dtype=np.float32) * FACTOR).clip(0, 255).astype(np.uint8)
    return table[pixels]


def _sharpness(pixels: MatLike) -> MatLike:
    """At a factor of 1 upstream filters the picture and then returns it as it was."""
    cv2.filter2D(pixels, -1, np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13)
    return pixels


def _sign() -> float:
    return -1.0 if np.random.random() < 0.5 else 1.0


def _warp(pixels: MatLike, matrix: Any) -> MatLike:
    height, width = pixels.shape[:2]
    matrix = np.asarray(matrix, dtype=np.float32)
    return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=GREY)


def _rotate(pixels: MatLike) -> MatLike:
    height, width = pixels.shape[:2]
    return _warp(pixels, cv2.getRotationMatrix2D((width / 2, height / 2), _sign() * 30 * STRENGTH, 1))


OPERATIONS: tuple[Callable[[MatLike], MatLike], ...] = (
    lambda pixels: pixels,
    _auto_contrast,
    _equalize,
    _brightness,
    _sharpness,
    lambda pixels: _warp(pixels, [[1, 0.3 * STRENGTH * _sign(), 0], [0, 1, 0]]),
    lambda pixels: _warp(pixels, [[1, 0, 0], [0.3 * STRENGTH * _sign(), 1, 0]]),
    lambda pixels: _warp(pixels, [[1, 0, -10 * STRENGTH * _sign()], [0, 1, 0]]),
    lambda pixels: _warp(pixels, [[1, 0, 0], [0, 1, -10 * STRENGTH * _sign()]]),
    _rotate,
)
