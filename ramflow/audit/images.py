"""Image checks: the bytes of every sample against the manifest, and every pixel decoded (F11)."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import cast

import polars as pl
from PIL import Image

from ramflow.audit.findings import FOUND_SCHEMA
from ramflow.audit.workers import map_in_order
from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb, open_image
from ramflow.data.shards import ShardReader
from ramflow.progress import track
from ramflow.settings import AuditSettings

COLUMNS = ("shard", "offset", "length", "sha256", "image_path")
BLANK_LEVELS = 4
"""An image is blank when no channel spans more of the 256 levels than this: JPEG makes even colours a little uneven."""

Row = tuple[str, int, int, str, str]
Fault = tuple[str, str]


def find(dataset: Dataset, settings: AuditSettings) -> pl.DataFrame:
    """All failures of the image checks (``FOUND_SCHEMA``), in order of samples.

    Raises:
        UserError: a shard is gone or cut off.
    """
    manifest = dataset.manifest
    look = partial(
        inspect, dataset.directory, max_pixels=settings.max_image_pixels, min_side=settings.min_image_side
    )
    faults = map_in_order(look, manifest.select(COLUMNS).iter_rows(), settings.workers)
    rows = [
        (check, sample, path, detail)
        for sample, (path, found) in enumerate(
            zip(manifest["image_path"], track(faults, "audit images", len(manifest)), strict=True)
        )
        for check, detail in found
    ]
    return pl.DataFrame(rows, schema=FOUND_SCHEMA, orient="row")


def inspect(directory: Path, row: Row, *, max_pixels: int, min_side: int) -> list[Fault]:
    """(check id, detail) of all that is wrong with one sample; ``row`` has the manifest's ``COLUMNS``."""
    shard, offset, length, sha256, image_path = row
    data = _reader(directory).read(shard, offset, length)
    faults = []
    if hashlib.sha256(data).hexdigest() != sha256:
        faults.append(("images.sha256_mismatch", f"{length} bytes at {offset} of {shard}"))
    try:
        image_format = open_image(data, max_pixels).format or ""
        image = decode_rgb(data, max_pixels)
    except ImageFault as fault:
        return [*faults, (f"images.{fault.kind}", str(fault))]
    return faults + _extension(image_path, image_format) + _content(image, min_side)


@cache
def _reader(directory: Path) -> ShardReader:
    return ShardReader(directory)


def _extension(image_path: str, image_format: str) -> list[Fault]:
    suffix = PurePosixPath(image_path).suffix.lower()
    real = "JPEG" if image_format == "MPO" else image_format  # MPO is a JPEG with more pictures behind the first
    if not suffix or Image.registered_extensions().get(suffix) == real:
        return []
    return [("images.extension", f"{suffix} holds {real}")]


def _content(image: Image.Image, min_side: int) -> list[Fault]:
    faults = []
    if min(image.size) < min_side:
        faults.append(("images.small", f"{image.width} x {image.height} pixels"))
    bands = cast("tuple[tuple[int, int], ...]", image.getextrema())
    if all(high - low <= BLANK_LEVELS for low, high in bands):
        faults.append(("images.blank", f"red, green and blue from {bands[0][0]}, {bands[1][0]}, {bands[2][0]}"))
    return faults
