"""JPEG files that decode and compress as photographs do: noise with their spectrum, and edges; the same every time."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SIZES = ((640, 480), (480, 640), (500, 375), (375, 500), (640, 427), (500, 333), (600, 400), (612, 612))
"""Width and height of most images of the 4M set: Flickr's and COCO's sizes."""
QUALITY = 90


def photo(number: int) -> Image.Image:
    """The ``number``-th picture, RGB."""
    random = np.random.default_rng((1, number))
    width, height = SIZES[number % len(SIZES)]
    luma = 120 + 45 * _noise(width, height, 1.1, random)
    chroma = [128 + 14 * _noise(width, height, 1.3, random) for _ in range(2)]
    pixels = np.stack([luma, *chroma], axis=-1).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels, "YCbCr").convert("RGB")
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(12):
        left, top = random.integers(0, (width, height))
        box = (left, top, left + random.integers(10, 200), top + random.integers(10, 200))
        pen.ellipse(tuple(map(int, box)), fill=(*map(int, random.integers(0, 256, 3)), 110))
    return image


def photo_jpeg(number: int, quality: int = QUALITY) -> bytes:
    """The ``number``-th picture as a JPEG file, some 100 kB."""
    buffer = BytesIO()
    photo(number).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _noise(width: int, height: int, steepness: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise whose amplitude falls with frequency as in photographs, mean 0, deviation 1, [height, width]."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency**steepness
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return noise / noise.std()
