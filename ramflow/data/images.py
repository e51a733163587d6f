"""Decoding images whole or not at all: nothing is padded, replaced or guessed (F11, F46)."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageFile

ImageFile.LOAD_TRUNCATED_IMAGES = False

MAX_PIXELS = 64_000_000


class ImageFault(Exception):
    """Why bytes are not a usable image; ``kind`` is the last part of a check id, such as ``truncated``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode every pixel of an image, as RGB; transparent pixels lie on white.

    Raises:
        ImageFault: ``empty``, ``not_an_image``, ``too_large`` or ``truncated`` (cut off or damaged).
    """
    if not data:
        raise ImageFault("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is our own, stricter bound
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageFault("too_large", str(error)) from None
    except (OSError, ValueError, SyntaxError):
        start = data[:16].decode("ascii", "replace")
        raise ImageFault("not_an_image", f"no image format starts with {start!r}") from None
    if image.width * image.height > max_pixels:
        raise ImageFault("too_large", f"{image.width} x {image.height} pixels")
    try:
        image.load()
        return _on_white(image)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageFault("truncated", str(error)) from None


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
