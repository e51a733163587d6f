"""One image decoded in full: what kind of file it is, and how its pixels lie."""

from __future__ import annotations

from PIL import ExifTags, Image

from ramflow.audit.bytes import Fault
from ramflow.data.images import open_image

ORDINARY_MODES = ("RGB", "L", "RGBA", "LA")
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
"""Formats of several frames. Not MPO: it holds other versions of one photograph, and all viewers show the first."""

ORIENTATIONS = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "mirrored along a diagonal",
    6: "turned to the left",
    7: "mirrored along a diagonal",
    8: "turned to the right",
}
"""How pixels lie that training sees, beside what viewers show, by the value of EXIF."""

PNG_DEPTH = 24
"""Where a PNG says how many bits a channel has."""


def of_file(data: bytes, image: Image.Image, max_aspect: float, min_side: int) -> list[Fault]:
    """Faults of a decoded image as a whole; ``image`` is in the mode of its file, and may have no faults at all."""
    return [*_mode(data, image), *_orientation(image), *_frames(data, image), *_size(image, max_aspect, min_side)]


def _mode(data: bytes, image: Image.Image) -> list[Fault]:
    if image.format == "PNG" and data[PNG_DEPTH] == 16:
        return [("images.mode", "16 bits a channel: 8 are kept")]
    if image.mode in ORDINARY_MODES or image.format == "GIF":  # every GIF has a palette
        return []
    return [("images.mode", f"{image.mode} in a {image.format}")]


def _orientation(image: Image.Image) -> list[Fault]:
    if image.format == "JPEG" and "exif" not in image.info and "xmp" not in image.info:
        return []
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is none: viewers do not turn such an image
        return []
    return [("images.orientation", f"the pixels lie {ORIENTATIONS[value]}")] if value in ORIENTATIONS else []


def _frames(data: bytes, image: Image.Image) -> list[Fault]:
    if image.format not in ANIMATED:
        return []
    try:
        again = open_image(data, image.width * image.height)  # counting would lose the pixels of this one
        count = getattr(again, "n_frames", 1)
    except Exception:
        return []
    return [("images.frames", f"{count} frames")] if count > 1 else []


def _size(image: Image.Image, max_aspect: float, min_side: int) -> list[Fault]:
    width, height = image.size
    faults = []
    if min(width, height) < min_side:
        faults.append(("images.small", f"{width} x {height} pixels"))
    if max(width, height) > max_aspect * min(width, height):
        faults.append(("images.aspect", f"{width} x {height} pixels"))
    return faults
