"""Two views of every probe image: crops, the second mirrored, and grey for every other image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as images_of

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.errors import UserError
from ramflow.model.preprocessing import to_pixels

SMALLEST_CROP = 0.35
LEAST_IMAGES = 8


def views_of(dataset: Dataset, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Two views, uint8 [images, 3, size, size] each, of up to ``count`` readable images of a few shards.

    Raises:
        UserError: fewer than eight images are readable.
    """
    draw = torch.Generator().manual_seed(0)
    first: list[Tensor] = []
    second: list[Tensor] = []
    for sample in dataset.some(count):
        try:
            pixels = to_pixels(decode_rgb(dataset.image(sample)))
        except ImageFault:
            continue
        first.append(_crop(pixels, size, draw))
        mirrored = images_of.horizontal_flip(_crop(pixels, size, draw))
        second.append(images_of.rgb_to_grayscale(mirrored, 3) if len(second) % 2 else mirrored)
    if len(first) < LEAST_IMAGES:
        raise UserError(f"{dataset.directory}: the probe needs {LEAST_IMAGES} readable images, {len(first)} are there")
    return torch.stack(first), torch.stack(second)


def _crop(pixels: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """A random crop of ``SMALLEST_CROP`` to all of the area, aspect kept, brought to [3, size, size]."""
    share, down, right = torch.rand(3, generator=draw).tolist()
    side = (SMALLEST_CROP + (1 - SMALLEST_CROP) * share) ** 0.5
    height, width = (max(1, round(side * n)) for n in pixels.shape[1:])
    top, left = int(down * (pixels.shape[1] - height)), int(right * (pixels.shape[2] - width))
    return images_of.resized_crop(pixels, top, left, height, width, [size, size], antialias=True)
