"""Where images come from: folders, tars, s3:// prefixes and s3:// tars; and reading one image's bytes from there.

A root is what ``--images`` names. It holds containers: its loose files, and each tar that is the root or lies directly
in it. An image is known by its container and either its name (a loose file) or its offset (a member of a tar).
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

from ramflow import storage
from ramflow.errors import NoSuchObject, UserError
from ramflow.s3 import Store
from ramflow.workers import check_stopped

Match = Literal["path", "caption"]

TAR = ".tar"
MAX_OPEN = 64
REMOTE_THREADS = 8
REMOTE_AHEAD = 32
REMOTE_BLOCK = 8 << 20

NOT_THERE: dict[int, str] = {
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "is a directory",
    errno.ENOTDIR: "not a directory",
    errno.ENAMETOOLONG: "file name too long",
    errno.ELOOP: "too many levels of symbolic links",
}
"""What it means for a record that its file cannot be opened; any other error ends the run."""


class Root(msgspec.Struct, frozen=True):
    """A folder, a tar, or an ``s3://`` address of either; its images belong to records by path or by caption."""

    address: str
    match: Match

    @property
    def remote(self) -> bool:
        """True for ``s3://``."""
        return storage.is_remote(self.address)

    def join(self, name: str) -> str:
        """The address of a file below the root; of the root itself for the empty name."""
        return f"{self.address}/{name}" if name else self.address


class Container(msgspec.Struct, frozen=True):
    """Loose files of a root (by its place in the list of roots), or one tar; ``name`` is the tar's below the root."""

    root: int
    name: str = ""
    tar: bool = False


class Place(NamedTuple):
    """Where the bytes of one image are: ``name`` below the root of a loose file, ``offset`` in a tar."""

    container: int
    name: str
    offset: int
    size: int


def parse_root(text: str | Path, match: Match) -> Root:
    """The root that ``[path=|caption=]ADDRESS`` names; ``match`` is what holds without a prefix.

    Raises:
        UserError: no such folder or tar, or a malformed s3:// address.
    """
    kind, separator, address = str(text).partition("=")
    if separator and kind in get_args(Match):
        match = "path" if kind == "path" else "caption"
    else:
        address = str(text)
    if storage.is_remote(address):
        address = address.rstrip("/")
        storage.split_address(address)
        return Root(address, match)
    path = Path(address)
    if not path.exists():
        raise UserError(f"no such folder of images: {address}")
    if not path.is_dir() and path.suffix != TAR:
        raise UserError(f"{address} is neither a folder nor a {TAR} file nor an s3:// address: give one for --images")
    return Root(str(path.resolve()), match)


class Reader:
    """Reads images from the containers of some roots. Each process needs its own."""

    def __init__(self, roots: Sequence[Root], containers: Sequence[Container]) -> None:
        self._roots = roots
        self._containers = containers
        self._tars: dict[str, int] = {}
        self._store = Store() if any(root.remote for root in roots) else None

    def read_all(self, places: Iterable[Place]) -> Iterator[bytes]:
        """The bytes of every image, in order; from s3:// several at a time.

        Raises:
            UserError: an image is gone or has another size than planned, or the store refuses.
        """
        if self._store is None:
            for place in places:
                check_stopped()
                yield self._read_local(place)
            return
        waiting: deque[Future[bytes] | Place] = deque()
        pool = ThreadPoolExecutor(REMOTE_THREADS)
        try:
            for place in places:
                remote = self._root_of(place).remote
                waiting.append(pool.submit(self._read_remote, place) if remote else place)
                if len(waiting) > REMOTE_AHEAD:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _result(self, waited: Future[bytes] | Place) -> bytes:
        check_stopped()
        return self._read_local(waited) if isinstance(waited, Place) else waited.result()

    def _root_of(self, place: Place) -> Root:
        return self._roots[self._containers[place.container].root]

    def _read_local(self, place: Place) -> bytes:
        container, root = self._containers[place.container], self._root_of(place)
        address = root.join(container.name if container.tar else place.name)
        try:
            if container.tar:
                return _member(address, os.pread(self._tar(address), *_span(place)), place)
            with open(address, "rb") as file:
                return _unchanged(address, file.read(), place)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            raise _changed(address, NOT_THERE[error.errno]) from None

    def _read_remote(self, place: Place) -> bytes:
        container, root = self._containers[place.container], self._root_of(place)
        address = root.join(container.name if container.tar else place.name)
        bucket, key = storage.split_address(address)
        assert self._store is not None
        data = io.BytesIO()
        try:
            if container.tar:
                size, offset = _span(place)
                self._store.get(bucket, key, data, span=(offset, size))
                return _member(address, data.getvalue(), place)
            self._store.get(bucket, key, data)
            return _unchanged(address, data.getvalue(), place)
        except NoSuchObject:
            raise _changed(address, "no such object") from None

    def _tar(self, address: str) -> int:
        if address not in self._tars:
            if len(self._tars) >= MAX_OPEN:
                os.close(self._tars.pop(next(iter(self._tars))))
            self._tars[address] = os.open(address, os.O_RDONLY)
        return self._tars[address]

    def close(self) -> None:
        """Close the tars that are open."""
        while self._tars:
            os.close(self._tars.popitem()[1])


def _span(place: Place) -> tuple[int, int]:
    """Length and offset of a member with the header block before it."""
    return place.size + tarfile.BLOCKSIZE, place.offset - tarfile.BLOCKSIZE


def _member(address: str, data: bytes, place: Place) -> bytes:
    header, image = data[: tarfile.BLOCKSIZE], data[tarfile.BLOCKSIZE :]
    try:
        planned = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size == place.size == len(image)
    except tarfile.TarError:
        planned = False
    if not planned:
        raise _changed(address, f"no member of {place.size} bytes at {place.offset}")
    return image


def _unchanged(address: str, data: bytes, place: Place) -> bytes:
    if len(data) != place.size:
        raise _changed(address, f"{len(data)} bytes instead of {place.size}")
    return data


def _changed(address: str, how: str) -> UserError:
    return UserError(
        f"{address} is not what it was when the packing was planned ({how}): bring it back, or delete the plan "
        "(OUT.partial, or the folder given with --plan) to pack it as it is now"
    )


class RemoteFile(io.RawIOBase):
    """An s3:// object as a file to read and seek in; wrap it in a buffer of ``REMOTE_BLOCK``, a request each."""

    def __init__(self, store: Store, address: str, size: int) -> None:
        self._store = store
        self._bucket, self._key = storage.split_address(address)
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte; returns its number."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the object goes; returns the bytes read.

        Raises:
            UserError: the store refuses, after retries.
        """
        check_stopped()
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        data = io.BytesIO()
        self._store.get(self._bucket, self._key, data, span=(self._position, size))
        read = data.getvalue()[:size]
        buffer[: len(read)] = read
        self._position += len(read)
        return len(read)
