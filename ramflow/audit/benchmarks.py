"""The images of benchmarks, by digest and perceptual hash, for the search of them in the training split."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from PIL import Image

from ramflow.audit.content import look
from ramflow.data.dataset import DATASET_FILE, Dataset
from ramflow.data.images import FORMATS, ImageFault, decode_rgb
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.settings import AuditSettings
from ramflow.workers import map_in_order

SCHEMA: dict[str, Any] = {
    "benchmark": pl.String,
    "path": pl.String,
    "sha256": pl.String,
    "phash": pl.UInt64,
    "blank": pl.Boolean,
}
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")


class Place(NamedTuple):
    """Where an image is: a file, the ``length`` bytes at ``offset`` of a tar, or of a ``shard`` of a packed dataset."""

    path: str
    """As it is reported: below the folder of benchmarks, its first part the name of the benchmark."""
    file: Path
    shard: str = ""
    offset: int = 0
    length: int = -1


def read_benchmarks(folder: Path, settings: AuditSettings) -> pl.DataFrame:
    """Every image of the benchmarks in ``folder``, a row each (``SCHEMA``), in order of its path.

    A benchmark is a subfolder or a tar: of images, of tars of images, or a packed dataset. Its name is that of the
    subfolder, or of the tar without ``.tar``. Files that are no images by their extension are passed over. ``phash`` is
    null where an image cannot be decoded, is blank, or too plain to have one.

    Raises:
        UserError: there is no such folder, it has another shape, a benchmark has no images, or a tar is damaged.
    """
    places = [place for name, top in _benchmarks(folder) for place in _images(name, top)]
    seen = map_in_order(partial(_fingerprint, settings.max_image_pixels), places, settings.workers)
    rows = [
        (place.path.partition("/")[0], place.path, *fingerprint)
        for place, fingerprint in zip(places, track(seen, "audit benchmarks", len(places)), strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _benchmarks(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of every benchmark."""
    if not folder.is_dir():
        raise UserError(f"no such folder of benchmarks: {folder}")
    if (folder / DATASET_FILE).exists():
        raise UserError(f"{folder} is a packed dataset: give the folder that it is in, each entry a benchmark")
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() or entry.suffix == ".tar":
            name = entry.name if entry.is_dir() else entry.stem
            if found.setdefault(name, entry) != entry:
                raise UserError(f"{folder} has two benchmarks of the name {name}: rename one")
        elif _is_image(entry.name):
            raise UserError(f"{entry} is of no benchmark: put it into a subfolder named as its benchmark")
        else:
            _refuse_archive(entry)
    if not found:
        raise UserError(f"{folder} has no benchmark: a subfolder or a tar for each is expected")
    return list(found.items())


def _images(name: str, top: Path) -> list[Place]:
    places = sorted(_packed(name, top) if (top / DATASET_FILE).exists() else _loose(name, top))
    if not places:
        raise UserError(f"{top} has no images ({', '.join(_extensions())}): fetch the benchmark's images, or remove it")
    return places


def _packed(name: str, top: Path) -> Iterator[Place]:
    rows = Dataset(top).scan().select("image_path", "shard", "offset", "length").collect()
    for image_path, shard, offset, length in rows.iter_rows():
        yield Place(f"{name}/{image_path}", top, shard, offset, length)


def _loose(name: str, top: Path) -> Iterator[Place]:
    if top.is_file():
        yield from _members(name, top)
        return
    for folder, _, files in os.walk(top, followlinks=True):
        for file in files:
            path = Path(folder, file)
            shown = f"{name}/{path.relative_to(top).as_posix()}"
            if path.suffix == ".tar":
                yield from _members(shown, path)
            elif _is_image(file):
                yield Place(shown, path)
            else:
                _refuse_archive(path)


def _members(shown: str, path: Path) -> Iterator[Place]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile() and _is_image(member.name):
                    yield Place(f"{shown}/{member.name}", path, "", member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a whole tar ({error}): fetch it again") from None


def _fingerprint(max_pixels: int, place: Place) -> tuple[str, int | None, bool]:
    """Digest in hex, perceptual hash, and whether the picture is blank."""
    data = _read(place)
    digest = hashlib.sha256(data).hexdigest()
    try:
        seen = look(decode_rgb(data, max_pixels), dark_below=0, light_above=255, blurred_below=0)
    except ImageFault:
        return digest, None, False
    return digest, seen.phash, seen.blank


def _read(place: Place) -> bytes:
    if place.shard:
        return _opened(place.file).read(place.shard, place.offset, place.length)
    with place.file.open("rb") as file:
        file.seek(place.offset)
        data = file.read(place.length)
    if 0 <= place.length != len(data):
        raise UserError(f"{place.file} is cut off: fetch it again")
    return data


@cache
def _opened(directory: Path) -> Dataset:
    return Dataset(directory)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _extensions()


@cache
def _extensions() -> tuple[str, ...]:
    return tuple(sorted(end for end, name in Image.registered_extensions().items() if name in FORMATS))


def _refuse_archive(path: Path) -> None:
    if path.name.lower().endswith(ARCHIVES):
        raise UserError(f"{path} is an archive that is not read: unpack it, or make it a .tar")
