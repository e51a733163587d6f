"""Local paths and s3:// alike: digests, inputs brought here, outputs that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramflow.errors import UserError
from ramflow.locks import locked

if TYPE_CHECKING:
    from ramflow.s3 import Store

PARTIAL = ".partial"
CLAIM = ".claim.json"
CHUNK = 1 << 20


def is_remote(path: str | Path) -> bool:
    """True for an ``s3://`` address."""
    return str(path).startswith("s3://")


def cache_directory() -> Path:
    """Where copies of remote things are kept: ``$RAMFLOW_CACHE``, or ``~/.cache/ramflow``."""
    return Path(os.environ.get("RAMFLOW_CACHE") or Path.home() / ".cache" / "ramflow").absolute()


def sha256_bytes(data: bytes) -> str:
    """``sha256:...`` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """``sha256:...`` of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def sha256_tree(directory: Path) -> dict[str, str]:
    """``sha256:...`` of every file below ``directory`` by its relative path, in order of the paths."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != CLAIM)
    return {p.relative_to(directory).as_posix(): sha256_file(p) for p in files}


def sha256_path(path: Path) -> str:
    """Digest of a file, or of all file names and contents of a directory."""
    if path.is_file():
        return sha256_file(path)
    return sha256_bytes("".join(f"{name}\0{digest}\n" for name, digest in sha256_tree(path).items()).encode())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; it takes the place of ``path`` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield temporary
        _readable(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path, *, marker: str, claim: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield ``path.partial``; it takes the place of ``path`` only if the block succeeds.

    An existing ``path`` is replaced only when it is empty or holds ``marker``, the file that every output of
    this kind has. A partial directory is removed when the block fails; with a ``claim`` (what the work is made
    from) it stays unless nothing is in it yet, and the next run with an equal claim goes on with it.

    Raises:
        UserError: ``path`` exists and is something else.
    """
    path = path.resolve()
    if path.is_mount():
        raise UserError(f"{path} is a mount point, which cannot be replaced whole: give a directory below it")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give a directory for the output")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).exists():
        raise UserError(f"{path} holds other files (no {marker}): give an empty or new directory for the output")
    partial = path.with_name(path.name + PARTIAL)
    note, text = partial / CLAIM, json.dumps(claim, sort_keys=True)
    if claim is None or not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        note.write_text(text, encoding="utf-8")
    for torn in partial.rglob(f"*{PARTIAL}"):
        shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
    try:
        yield partial
        note.unlink()
        _readable(partial)
        _swap(partial, path)
    finally:
        if claim is None or not any(p.is_file() and p != note for p in partial.rglob("*")):
            shutil.rmtree(partial, ignore_errors=True)


def _readable(path: Path) -> None:
    """Give a new file, or all in a new directory, what the umask leaves to others: safetensors leaves them nothing."""
    umask = os.umask(0o022)
    os.umask(umask)
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | (0o666 & ~umask))


def _swap(new: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def fetch(path: str | Path, cache: Path) -> Path:
    """The local path of an input: itself, or a copy under ``cache`` of an s3:// object or of all below a prefix.

    Raises:
        UserError: nothing is there, or the store refuses.
    """
    if not is_remote(path):
        local = Path(path)
        if not local.exists():
            raise UserError(f"no such file or directory: {path}")
        return local
    from ramflow.s3 import Store

    bucket, prefix = split_address(str(path))
    store, local = Store(), cache / bucket / prefix
    with locked(lock_of(local, cache)):
        keys = [key for key, _ in store.objects(bucket, prefix) if _is_below(key, prefix)]
        if not keys:
            raise UserError(f"no such object or prefix: {path}")
        remove_others(local, {cache / bucket / key for key in keys})
        for key in keys:
            download(store, bucket, key, cache / bucket / key)
    return local


def _is_below(key: str, prefix: str) -> bool:
    return (key == prefix or key.startswith(prefix.rstrip("/") + "/")) and not key.endswith("/")


def remove_others(directory: Path, wanted: set[Path]) -> None:
    """Remove the files below ``directory`` that are not ``wanted``."""
    for path in directory.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def download(store: Store, bucket: str, key: str, place: Path, digest: str | None = None) -> None:
    """Copy an object to ``place``, whole or not at all; it has the ``digest`` (``sha256:...``) where one is given."""
    with whole_file(place) as temporary, temporary.open("wb") as file:
        store.get(bucket, key, file, sha256=digest and digest.removeprefix("sha256:"))


def lock_of(local: Path, cache: Path) -> Path:
    """The lock file of those who write into the copy ``local`` below ``cache``."""
    return cache / "locks" / hashlib.sha256(str(local).encode()).hexdigest()


def publish(directory: Path, address: str, last: str) -> None:
    """Copy all files of ``directory`` below an s3:// address; ``last`` goes last, so that it vouches for the rest.

    Raises:
        UserError: the store refuses.
    """
    from ramflow.s3 import Store

    bucket, prefix = split_address(address.rstrip("/"))
    files = sorted((p for p in directory.rglob("*") if p.is_file()), key=lambda p: (p.name == last, str(p)))
    store = Store()
    for file in files:
        store.put(file, bucket, f"{prefix}/{file.relative_to(directory).as_posix()}")


def split_address(address: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://BUCKET/PREFIX``.

    Raises:
        UserError: one of the two is missing.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise UserError(f"{address} is not s3://BUCKET/PREFIX")
    return bucket, key
