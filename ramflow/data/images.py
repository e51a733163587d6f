"""Decoding images whole or not at all: nothing is padded, replaced or guessed (F11, F46)."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageFile

ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("ignore", module=r"PIL\.")  # of bombs, which max_pixels refuses, and of odd metadata

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is decoded. Not EPS and the like: Pillow hands those to outside programs, and data sets are not trusted."""

START_OF_SCAN = b"\xff\xda"
END_OF_IMAGE = b"\xff\xd9"


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
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageFault("too_large", str(error)) from None
    except Exception:  # a decoder may raise anything on bytes that are not what they say
        start = data[:16].decode("ascii", "replace")
        raise ImageFault("not_an_image", f"none of {', '.join(FORMATS)} starts with {start!r}") from None
    if image.width * image.height > max_pixels:
        raise ImageFault("too_large", f"{image.width} x {image.height} pixels")
    return image


def load_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode every pixel of an image, once, in the mode of its file; see :func:`to_rgb`.

    Raises:
        ImageFault: ``empty``, ``not_an_image``, ``too_large`` or ``truncated`` (cut off or damaged).
    """
    image = open_image(data, max_pixels)
    try:
        image.load()
    except Exception as error:
        raise ImageFault("truncated", str(error) or type(error).__name__) from None
    if image.format == "JPEG" and not _has_its_end(data):
        raise ImageFault("truncated", "the end of the picture is missing, other bytes take its place")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as RGB; transparent pixels lie on white, 16-bit grey is scaled to 8.

    Raises:
        ImageFault: ``truncated``: the palette or the transparency is damaged.
    """
    try:
        if image.mode.startswith("I;16"):
            image = image.convert("I").point(lambda value: value / 256).convert("L")  # else nearly all clips to white
        if not image.has_transparency_data:
            return image if image.mode == "RGB" else image.convert("RGB")
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    except Exception as error:
        raise ImageFault("truncated", str(error) or type(error).__name__) from None


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """:func:`load_image` and :func:`to_rgb`: the pixels that training sees.

    Raises:
        ImageFault: ``empty``, ``not_an_image``, ``too_large`` or ``truncated`` (cut off or damaged).
    """
    return to_rgb(load_image(data, max_pixels))


def _has_its_end(jpeg: bytes) -> bool:
    """Whether a JPEG's end follows its pixels: a download that was cut and filled up decodes without complaint."""
    if jpeg.endswith(END_OF_IMAGE):
        return True
    place = 2
    while jpeg[place : place + 2] != START_OF_SCAN:
        if jpeg[place : place + 1] != b"\xff":  # not a segment: decoders search on for one, so no place is known
            return END_OF_IMAGE in jpeg
        filler = jpeg[place + 1 : place + 2] == b"\xff"
        place += 1 if filler else 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return jpeg.find(END_OF_IMAGE, place) >= 0
