"""Decoding images whole or not at all: nothing is padded, replaced or guessed (F11, F46)."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageFile

ImageFile.LOAD_TRUNCATED_IMAGES = False

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is decoded. Not EPS and the like: Pillow hands those to outside programs, and data sets are not trusted."""


class ImageFault(Exception):
    """Why bytes are not a usable image; ``kind`` is the last part of a check id, such as ``truncated``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header only: size and ``format`` are known, pixels are not decoded.

    Raises:
        ImageFault: ``empty``, ``not_an_image`` or ``too_large``.
    """
    if not data:
        raise ImageFault("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is our own, stricter bound
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageFault("too_large", str(error)) from None
    except Exception:  # a decoder may raise anything on bytes that are not what they say
        start = data[:16].decode("ascii", "replace")
        raise ImageFault("not_an_image", f"none of {', '.join(FORMATS)} starts with {start!r}") from None
    if image.width * image.height > max_pixels:
        raise ImageFault("too_large", f"{image.width} x {image.height} pixels")
    return image


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode every pixel of an image, as RGB; transparent pixels lie on white, 16-bit grey is scaled to 8.

    Raises:
        ImageFault: ``empty``, ``not_an_image``, ``too_large`` or ``truncated`` (cut off or damaged).
    """
    image = open_image(data, max_pixels)
    try:
        image.load()
        return _to_rgb(image)
    except Exception as error:
        raise ImageFault("truncated", str(error) or type(error).__name__) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")  # plain conversion would clip nearly all to white
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
