"""Tar shards in WebDataset layout: adding members without a trace of this machine, and reading bytes back by offset."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path

from ramflow.data.cache import ShardCache
from ramflow.errors import UserError

MAX_OPEN = 256


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member without owner, time or rights; returns the offset of its first byte in the shard."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, BytesIO(data))
    return offset


class ShardReader:
    """Random access to the samples in the shards of one directory, or of a cache of shards that are elsewhere.

    May be handed to worker processes: a shard is opened by the process that reads it, and at most ``MAX_OPEN`` stay
    open. Not for several threads at a time.
    """

    def __init__(self, directory: Path, cache: ShardCache | None = None) -> None:
        self.directory = directory
        self._cache = cache
        self._open: dict[tuple[int, str], int] = {}

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset`` of a shard.

        Raises:
            UserError: the shard is gone or shorter than the manifest says.
        """
        data = os.pread(self._file(shard), length, offset)
        if len(data) != length and self._cache is not None:  # the copy was damaged on this disk: fetch another
            self._cache.forget(shard)
            self._close((os.getpid(), shard))
            data = os.pread(self._file(shard), length, offset)
        if len(data) != length:
            raise UserError(f"{self.directory / shard} is cut off: fetch or pack the dataset again")
        return data

    def _file(self, shard: str) -> int:
        key = (os.getpid(), shard)
        if key not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._close(next(iter(self._open)))
            self._open[key] = self._opened(shard)
        return self._open[key]

    def _opened(self, shard: str) -> int:
        if self._cache is not None:
            for key in [k for k, d in self._open.items() if k[0] == os.getpid() and os.fstat(d).st_nlink == 0]:
                self._close(key)  # evicted: give back its room
            return self._cache.open(shard)
        try:
            return os.open(self.directory / shard, os.O_RDONLY)
        except FileNotFoundError:
            raise UserError(f"{self.directory / shard} is gone: fetch or pack the dataset again") from None

    def _close(self, key: tuple[int, str]) -> None:
        descriptor = self._open.pop(key)
        if key[0] == os.getpid():
            os.close(descriptor)
