"""What one picture shows, as far as a glance tells: one colour, dark, light, blurred; and its perceptual hash.

Looking must cost little beside decoding. So all is measured on some pixels of the picture, 256 across and 128 down, in
grey, and on their means in a grid of 32 by 32; only what seems blank or blurred there is looked at again.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ramflow.audit.bytes import Fault

Grey = npt.NDArray[np.uint8]

GRID = 32
CELL = (8, 4)
"""Pixels across and down that are looked at in a cell of the grid."""
HASHED = 8
"""The hash is of the ``HASHED`` x ``HASHED`` lowest frequencies of the ``GRID`` x ``GRID`` picture."""

BLANK_LEVELS = 4
"""An image is blank when no channel spans more of the 256 levels than this: JPEG makes even colours a little uneven."""

BRIGHT, DARK = 64, 224
SPECKS = 1 / 1000
"""A dark picture has at most this share of pixels above ``BRIGHT``, a light one below ``DARK``."""

SIDE = 256
"""Longer side in pixels at which sharpness is measured, once a picture is suspected; smaller ones stay as they are."""
CLEARLY_SHARP = 5
"""A picture is suspected unless its pixels bend more than the limit by this factor."""

NOISE = 0.25
"""Grey levels by which a frequency must exceed the median: so the noise of compression sets no bits of drawings."""
MIN_BITS = 12
"""A picture of fewer set bits, such as a few stripes, has too few frequencies to be known by them."""

WHOLE = 4096  # cosines as whole numbers: their sums are exact in any order, so hashes are the same on any machine
COSINES = np.rint(WHOLE * np.cos(np.pi * np.outer(np.arange(HASHED), 2 * np.arange(GRID) + 1) / (2 * GRID)))
SINGLE_LEVEL = (WHOLE * GRID / 2) ** 2
"""The frequency that a cosine wave of one grey level has."""


class Content(NamedTuple):
    """What :func:`look` sees."""

    faults: list[Fault]
    """None or one: what is blank, dark or light is not called blurred too."""
    phash: int | None
    """64 bits; none where the picture is blank or too plain for them to mean it."""
    blank: bool


def look(image: Image.Image, dark_below: float, light_above: float, blurred_below: float) -> Content:
    """Look at an RGB image; the limits are those of the settings ``audit``, 0, 255 and 0 name nothing."""
    some = image.resize((CELL[0] * GRID, CELL[1] * GRID), Image.Resampling.NEAREST).convert("L")
    grid = some.reduce(CELL)
    if _blank(image, grid):
        low = [low for low, _ in _extrema(image)]
        return Content([("images.blank", f"red, green and blue from {low[0]}, {low[1]}, {low[2]}")], None, True)
    frequencies = COSINES.dot(np.asarray(grid).astype(np.float64)).dot(COSINES.T).ravel().tolist()
    mean = frequencies[0] / (WHOLE * GRID) ** 2
    grey = np.asarray(some)
    fault = _brightness(grey, mean, dark_below, light_above) or _blur(image, grey, blurred_below)
    return Content([fault] if fault else [], _hash(frequencies), False)


def _blank(image: Image.Image, grid: Image.Image) -> bool:
    """Whether all pixels have one colour. The means in ``grid`` rule that out for nearly all images."""
    low, high = cast("tuple[int, int]", grid.getextrema())
    if high - low > BLANK_LEVELS + 1:  # one for rounding
        return False
    return all(high - low <= BLANK_LEVELS for low, high in _extrema(image))


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    return cast("tuple[tuple[int, int], ...]", image.getextrema())


def _brightness(grey: Grey, mean: float, dark_below: float, light_above: float) -> Fault | None:
    if mean < dark_below and np.count_nonzero(grey > BRIGHT) <= SPECKS * grey.size:
        return "images.dark", f"mean {mean:.1f} of 255"
    if mean > light_above and np.count_nonzero(grey < DARK) <= SPECKS * grey.size:
        return "images.light", f"mean {mean:.1f} of 255"
    return None


def _blur(image: Image.Image, grey: Grey, blurred_below: float) -> Fault | None:
    if _bends(grey) >= CLEARLY_SHARP * blurred_below:
        return None
    scale = SIDE / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    if min(image.size) < 3:
        return None
    bands = [*image.split(), image.convert("L")]  # edges of colour may be none of grey
    value = max(sharpness(np.asarray(band)) for band in bands)
    return ("images.blurred", f"sharpness {value:.1f}") if value < blurred_below else None


def sharpness(grey: Grey) -> float:
    """Variance of the Laplacian of a picture [height, width], at least 3 by 3."""
    whole = grey.astype(np.int16)
    edges = 4 * whole[1:-1, 1:-1] - whole[:-2, 1:-1] - whole[2:, 1:-1] - whole[1:-1, :-2] - whole[1:-1, 2:]
    return float(edges.var(dtype=np.float64))


def _bends(grey: Grey) -> float:
    """Mean square of the second difference along every eighth row: about half the sharpness, and quicker."""
    rows = grey[4::8]
    bends = rows[:, 2:].astype(np.float32)
    bends += rows[:, :-2]
    bends -= rows[:, 1:-1]
    bends -= rows[:, 1:-1]
    values = bends.ravel()
    return float(values @ values) / values.size


def _hash(frequencies: list[float]) -> int | None:
    """The standard perceptual hash: a bit a frequency, set where it exceeds the median of all."""
    ordered = sorted(frequencies)
    middle = len(ordered) // 2
    limit = (ordered[middle - 1] + ordered[middle]) / 2 + NOISE * SINGLE_LEVEL
    bits = 0
    for frequency in frequencies:
        bits = bits << 1 | (frequency > limit)
    return bits if bits.bit_count() >= MIN_BITS else None
