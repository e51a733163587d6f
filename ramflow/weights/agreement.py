"""What images say of an encoder: does it see that two views of one image belong together?

A random network sees colours and brightness, a trained one what is in the image. Each image is shown as two crops, the
second mirrored, and grey for every other image. Features are whitened over their strongest directions: brightness
alone does not decide. The figure is how many standard deviations the views of one image are closer than those of two.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms.v2 import functional as images_of

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing, to_pixels

SMALLEST_CROP = 0.35
IMAGES_A_DIRECTION = 4
LEAST_IMAGES = 8
BATCH = 16


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


@torch.inference_mode()
def agreement(encoder: Swin, views: tuple[Tensor, Tensor]) -> float:
    """How many standard deviations the views of one image are closer than those of two; 0 for constant features."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    preprocessing = Preprocessing(encoder.image_size, encoder.mean, encoder.std)
    encoder.to(device)
    images = torch.cat(views)
    features = [encoder(preprocessing.normalise(batch.to(device)))[:, 0].cpu() for batch in images.split(BATCH)]
    encoder.cpu()
    first, second = torch.cat(features).chunk(2)
    return separation(first, second)


def separation(first: Tensor, second: Tensor) -> float:
    """The figure for features of the first and second views [images, width], float32."""
    count = len(first)
    centred = torch.cat([first, second]).double()
    centred = centred - centred.mean(dim=0)
    if not centred.isfinite().all():
        return 0.0
    _, strengths, directions = torch.linalg.svd(centred, full_matrices=False)
    kept = min(count // IMAGES_A_DIRECTION, int((strengths > 1e-6 * strengths[0]).sum()))
    if kept < 2:
        return 0.0
    whitened = normalize(centred @ (directions[:kept].T / strengths[:kept]), dim=1)
    cosines = whitened[:count] @ whitened[count:].T
    others = cosines[~torch.eye(count, dtype=torch.bool)]
    return float((cosines.diag().mean() - others.mean()) / others.std())
