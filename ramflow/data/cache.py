"""Shards of an s3:// dataset on the local disk: each is fetched whole, once, and the least recently used give way.

A shard is ``DIGEST.tar``, so that sets which share shards share them here too. While it comes it is ``DIGEST.partial``,
locked by the one who fetches it; whoever else wants it waits for that lock. What a killed process leaves is a partial
file that nobody has locked: the next one writes over it or removes it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramflow.errors import UserError
from ramflow.locks import lock, locked, unlock
from ramflow.storage import cache_directory, split_address

if TYPE_CHECKING:
    from ramflow.s3 import Store

DEFAULT_GB = 100.0
PREFETCH_THREADS = 2
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class _Process:
    """What belongs to one process and is not handed to another."""

    pid: int = field(default_factory=os.getpid)
    guard: threading.Lock = field(default_factory=threading.Lock)
    store: Store | None = None
    wanted: deque[str] = field(default_factory=deque)
    threads: int = 0


class ShardCache:
    """A bounded local copy of the shards below an s3:// address, shared by all processes of the machine.

    May be handed to worker processes, and used by several threads. The bound is on the files of the cache; a shard
    that is evicted while a reader has it open takes its room until the reader closes it.
    """

    def __init__(
        self, address: str, digests: Mapping[str, str], directory: Path | None = None, max_bytes: int | None = None
    ) -> None:
        """Nothing is fetched yet.

        Args:
            address: ``s3://BUCKET/PREFIX``, below which the shards are.
            digests: ``sha256:...`` by shard name (``files`` of ``dataset.json``).
            directory: of the cache; ``$RAMFLOW_CACHE``, else ``~/.cache/ramflow``.
            max_bytes: that its shards may take; ``$RAMFLOW_CACHE_GB`` GiB, else 100 GiB.

        Raises:
            UserError: the address or ``RAMFLOW_CACHE_GB`` is malformed.
        """
        self.bucket, self.prefix = split_address(address.rstrip("/"))
        self.directory = (cache_directory() if directory is None else directory) / "shards"
        self.max_bytes = _max_bytes() if max_bytes is None else max_bytes
        self._digests = {name: digest.removeprefix("sha256:") for name, digest in digests.items()}
        self._own = _Process()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = _Process()

    def path(self, shard: str) -> Path:
        """Local path of a whole shard. Fetches what is not there; waits while another process fetches it.

        It may be evicted at any time by another process: :meth:`open` is safe against that.

        Raises:
            UserError: the store refuses or sends wrong bytes, or the disk is full.
        """
        place = self._place(shard)
        while not _touch(place):
            self._fetch_or_wait(shard, place)
        return place

    def open(self, shard: str) -> int:
        """A new file descriptor of the shard, readable whatever is evicted later.

        Raises:
            UserError: as :meth:`path`.
        """
        while True:
            with suppress(FileNotFoundError):  # evicted between the two
                return os.open(self.path(shard), os.O_RDONLY)

    def forget(self, shard: str) -> None:
        """Remove a local copy that turned out to be damaged."""
        self._place(shard).unlink(missing_ok=True)

    def prefetch(self, shards: Iterable[str]) -> None:
        """Fetch shards in the background, best effort: an error is left for :meth:`path` to meet and to name."""
        own = self._process()
        with own.guard:
            own.wanted.extend(s for s in shards if s not in own.wanted and not self._place(s).exists())
            while own.threads < min(PREFETCH_THREADS, len(own.wanted)):
                threading.Thread(target=self._work, args=[own], name="ramflow-prefetch", daemon=True).start()
                own.threads += 1

    def _work(self, own: _Process) -> None:
        while True:
            with own.guard:
                if not own.wanted:
                    own.threads -= 1
                    return
                shard = own.wanted.popleft()
            with suppress(Exception):
                self.path(shard)

    def _place(self, shard: str) -> Path:
        return self.directory / f"{self._digests[shard]}.tar"

    def _process(self) -> _Process:
        if self._own.pid != os.getpid():  # forked: connections, threads and locks are the parent's
            self._own = _Process()
        return self._own

    def _store(self) -> Store:
        own = self._process()
        with own.guard:
            if own.store is None:
                from ramflow.s3 import Store

                own.store = Store()
            return own.store

    def _fetch_or_wait(self, shard: str, place: Path) -> None:
        partial = place.with_suffix(".partial")
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(descriptor, partial)
            if not _is_at(descriptor, partial):  # the one who had the lock has finished, or given up
                return
            done = False
            try:
                if not place.exists():
                    self._fetch(shard, descriptor)
                    os.replace(partial, place)
                    done = True
            finally:
                if not done:
                    partial.unlink()
        finally:
            unlock(descriptor)
            os.close(descriptor)

    def _fetch(self, shard: str, descriptor: int) -> None:
        size = 0

        def reserve(length: int) -> None:
            nonlocal size
            size = length
            self._reserve(shard, descriptor, length)

        for full_before in (False, True):
            try:
                with os.fdopen(descriptor, "r+b", closefd=False) as file:
                    key = f"{self.prefix}/{shard}"
                    self._store().get(self.bucket, key, file, sha256=self._digests[shard], reserve=reserve)
                os.fsync(descriptor)
                return
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                if full_before:
                    raise UserError(
                        f"{self.directory}: the disk is full, no room for {shard} ({_gib(size)}): "
                        "free some, or set RAMFLOW_CACHE to another disk"
                    ) from None
            with locked(self._evict_lock):
                self._evict(descriptor, sum(size for _, size, _ in self._others(descriptor)) - size)

    def _reserve(self, shard: str, descriptor: int, size: int) -> None:
        """Evict what would go over the bound, and take the disk space at once, so that all processes count it."""
        if size > self.max_bytes:
            raise UserError(
                f"{shard} has {_gib(size)}, the cache may hold {_gib(self.max_bytes)}: set RAMFLOW_CACHE_GB higher"
            )
        with locked(self._evict_lock):
            self._evict(descriptor, self.max_bytes - size)
            if size:
                os.posix_fallocate(descriptor, 0, size)

    def _evict(self, descriptor: int, keep: int) -> None:
        """Remove the least recently used shards until all files but our own partial one take at most ``keep`` bytes."""
        others = self._others(descriptor)
        used = sum(size for _, size, _ in others)
        for _, size, path in sorted(others):
            if used <= keep:
                return
            if path.suffix == ".tar":
                path.unlink(missing_ok=True)
                used -= size

    def _others(self, descriptor: int) -> list[tuple[int, int, Path]]:
        """Time of last use in ns, bytes and path of every file but our own; partial files of the dead are removed."""
        result, own = [], os.fstat(descriptor).st_ino
        for path in self.directory.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_ino != own and not (path.suffix == ".partial" and _remove_if_dead(path)):
                    result.append((status.st_mtime_ns, status.st_size, path))
        return result

    @property
    def _evict_lock(self) -> Path:
        return self.directory / "evict.lock"


def _max_bytes() -> int:
    text = os.environ.get("RAMFLOW_CACHE_GB") or str(DEFAULT_GB)
    try:
        size = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UserError(f"RAMFLOW_CACHE_GB={text}: a number of GiB above 0 is expected")
    return size


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _touch(path: Path) -> bool:
    """Note that a file is used now; False if it is not there."""
    now = time.time_ns()  # finer than the clock of the file system
    try:
        os.utime(path, ns=(now, now))
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's, in a cache that users share
        pass
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_if_dead(partial: Path) -> bool:
    """Remove a partial file that nobody has locked."""
    descriptor = os.open(partial, os.O_RDWR)
    try:
        if not lock(descriptor, partial, wait=False):
            return False
        if _is_at(descriptor, partial):
            partial.unlink()
        return True
    finally:
        unlock(descriptor)
        os.close(descriptor)
