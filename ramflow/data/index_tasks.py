"""Indexing one tar, or some loose files: what their images are called, where they are, and the captions beside them.

Where a root is matched by caption, its images are the files with a sidecar beside them, as img2dataset writes it:
``NAME.txt`` (the caption) or, where that is absent or blank, ``NAME.json`` (with a ``caption``).
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
import polars as pl

from ramflow import storage
from ramflow.data.sources import NOT_THERE, REMOTE_BLOCK, REMOTE_THREADS, RemoteFile, Root
from ramflow.errors import NoSuchObject, UserError
from ramflow.s3 import Store
from ramflow.workers import check_stopped

INDEX_SCHEMA = pl.Schema({
    "container": pl.Int32,
    "name": pl.String,
    "offset": pl.Int64,
    "size": pl.Int64,
    "caption": pl.String,
})  # fmt: skip
TAR_SCHEMA: dict[str, Any] = {"name": pl.String, "offset": pl.Int64, "size": pl.Int64}
CAPTION_SCHEMA: dict[str, Any] = {"stem": pl.String, "rank": pl.Int32, "caption": pl.String}
SIDECARS = (".txt", ".json")
MAX_SIDECAR_BYTES = 1 << 20
ROWS = 1 << 13


class _Sidecar(msgspec.Struct):
    caption: str | None = None


@dataclass(frozen=True)
class TarTask:
    """One tar to index; ``size`` is known of a remote one."""

    container: int
    address: str
    size: int
    captions: bool

    def frame(self) -> pl.DataFrame:
        """Its images with ``INDEX_SCHEMA``; holds about 100 bytes a member.

        Raises:
            UserError: it is cut off, compressed or no tar.
        """
        try:
            with self._open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
                images, captions = _members(tar, self.captions)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no end of the archive")
        except tarfile.TarError as error:
            raise UserError(f"{self.address} is cut off or not a plain tar ({error}): fetch it again") from None
        images = images.unique("name", keep="last", maintain_order=True)  # the last one is what `tar -x` leaves
        if self.captions:
            stems = [posixpath.splitext(name)[0] for name in images["name"]]
            captions = captions.sort("rank", maintain_order=True).unique("stem", keep="first", maintain_order=True)
            images = images.with_columns(stem=pl.Series(stems, dtype=pl.String)).join(captions, on="stem")
        else:
            images = images.with_columns(caption=pl.lit(None, pl.String))
        return _indexed(images, self.container)

    def _open(self) -> BinaryIO:
        if storage.is_remote(self.address):
            return io.BufferedReader(RemoteFile(Store(), self.address, self.size), REMOTE_BLOCK)
        return open(self.address, "rb")


@dataclass(frozen=True)
class LooseTask:
    """Some loose files of a root, to index; ``sizes`` are known of remote ones, whose sidecars are in ``names`` too."""

    container: int
    root: Root
    names: list[str]
    sizes: list[int]

    def frame(self) -> pl.DataFrame:
        """The images among them, with ``INDEX_SCHEMA``.

        Raises:
            UserError: the store refuses.
        """
        rows: list[tuple[str, int, str | None]]
        if self.root.match == "path":
            rows = list(zip(self.names, self.sizes, [None] * len(self.names), strict=True))
        elif self.root.remote:
            rows = self._remote()
        else:
            rows = [(n, os.stat(self.root.join(n)).st_size, c) for n in self.names if (c := _caption(n, self._read))]
        schema = {"name": pl.String, "size": pl.Int64, "caption": pl.String}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return _indexed(frame.with_columns(offset=pl.lit(0, pl.Int64)), self.container)

    def _read(self, name: str) -> bytes | None:
        check_stopped()
        try:
            with open(self.root.join(name), "rb") as file:
                return file.read(MAX_SIDECAR_BYTES)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None

    def _remote(self) -> list[tuple[str, int, str | None]]:
        store, sizes = Store(), dict(zip(self.names, self.sizes, strict=True))

        def read(name: str) -> bytes | None:
            check_stopped()
            if sizes.get(name, MAX_SIDECAR_BYTES) >= MAX_SIDECAR_BYTES:
                return None
            data = io.BytesIO()
            with suppress(NoSuchObject):
                store.get(*storage.split_address(self.root.join(name)), data)
            return data.getvalue()

        images = [name for name in self.names if not name.endswith(SIDECARS)]
        with ThreadPoolExecutor(REMOTE_THREADS) as pool:
            captions = pool.map(lambda name: _caption(name, read), images)
            return [(name, sizes[name], c) for name, c in zip(images, captions, strict=True) if c]


def _caption(image: str, read: Callable[[str], bytes | None]) -> str | None:
    """The caption beside an image, or None."""
    for ending in SIDECARS:
        data = read(posixpath.splitext(image)[0] + ending)
        if data is not None and (caption := caption_of(ending, data)):
            return caption
    return None


def caption_of(ending: str, data: bytes) -> str | None:
    """The caption in a sidecar, None where it has none or a blank one."""
    caption: str | None = data.decode("utf-8", "replace")
    if ending == ".json":
        try:
            caption = msgspec.json.decode(caption or "", type=_Sidecar).caption
        except msgspec.MsgspecError:
            caption = None
    return caption if caption and caption.strip() else None


def _members(tar: tarfile.TarFile, with_captions: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The images with ``TAR_SCHEMA``, and their sidecars with ``CAPTION_SCHEMA``."""
    images, captions = _Rows(TAR_SCHEMA), _Rows(CAPTION_SCHEMA)
    while (member := tar.next()) is not None:
        check_stopped()
        tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
        if not member.isreg() or member.issparse():
            continue
        name = member.name.removeprefix("./").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        stem, ending = posixpath.splitext(name)
        if with_captions and ending in SIDECARS:
            file = tar.extractfile(member)
            if file and member.size < MAX_SIDECAR_BYTES and (caption := caption_of(ending, file.read())):
                captions.add((stem, SIDECARS.index(ending), caption))
        else:
            images.add((name, member.offset_data, member.size))
    return images.frame(), captions.frame()


class _Rows:
    """Rows that become a frame, some thousand at a time."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        self._frames.append(pl.DataFrame(self._rows, schema=self._schema, orient="row"))
        self._rows = []

    def frame(self) -> pl.DataFrame:
        self._flush()
        return pl.concat(self._frames)


def _indexed(rows: pl.DataFrame, container: int) -> pl.DataFrame:
    return rows.with_columns(container=pl.lit(container, pl.Int32)).select(INDEX_SCHEMA.names()).cast(INDEX_SCHEMA)
