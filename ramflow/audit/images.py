"""Everything about the image of one sample: its bytes, the file, and what the picture shows (F11)."""

from __future__ import annotations

from typing import NamedTuple

from ramflow.audit.bytes import Fault, against_manifest, extension, not_an_image
from ramflow.audit.content import look
from ramflow.audit.decode import of_file
from ramflow.data.images import ImageFault, load_image, to_rgb
from ramflow.settings import AuditSettings


class Row(NamedTuple):
    """What the manifest says about a sample's image."""

    image_path: str
    length: int
    sha256: str


class Looked(NamedTuple):
    """What an image is found to be."""

    faults: list[Fault]
    phash: int | None = None
    """Perceptual hash, 64 bits; none where nothing is decoded, or the picture is blank or too plain."""
    blank: bool = False


def inspect(data: bytes, row: Row, settings: AuditSettings) -> Looked:
    """All faults of one image; it is opened and decoded once.

    Args:
        data: its bytes as they are in the shard.
        row: what the manifest says about them.
        settings: the limits.
    """
    faults = against_manifest(data, row.length, row.sha256)
    try:
        image = load_image(data, settings.max_image_pixels)
        rgb = to_rgb(image)
    except ImageFault as fault:
        found = not_an_image(data) if fault.kind == "not_an_image" else (f"images.{fault.kind}", str(fault))
        return Looked([*faults, found])
    faults += extension(row.image_path, image.format or "")
    faults += of_file(data, image, settings.max_aspect, settings.min_image_side)
    content = look(rgb, settings.dark_below, settings.light_above, settings.blurred_below)
    return Looked(faults + content.faults, content.phash, content.blank)
