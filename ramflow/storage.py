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

if TYPE_CHECKING:
    from botocore.client import BaseClient

PARTIAL = ".partial"
CLAIM = ".claim.json"
CHUNK = 1 << 20


def is_remote(path: str | Path) -> bool:
    """True for an ``s3://`` address."""
    return str(path).startswith("s3://")


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
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path, *, marker: str, claim: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield ``path.partial``; it takes the place of ``path`` only if the block succeeds.

    An existing ``path`` is replaced only when it is empty or holds ``marker``, the file that every output of
    this kind has. A partial directory is removed when the block fails; with a ``claim`` (what the work is made
    from) it stays, and the next run with an equal claim goes on with it.

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
        _swap(partial, path)
    finally:
        if claim is None:
            shutil.rmtree(partial, ignore_errors=True)


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
    bucket, prefix = split_address(str(path))
    local = cache / bucket / prefix
    with _store_errors(path):
        client = _client()
        keys = [
            item["Key"]
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", ())
            if (item["Key"] == prefix or item["Key"].startswith(prefix.rstrip("/") + "/"))
            and not item["Key"].endswith("/")
        ]
        if not keys:
            raise UserError(f"no such object or prefix: {path}")
        wanted = {cache / bucket / key for key in keys}
        for stale in [p for p in local.rglob("*") if p.is_file() and p not in wanted]:
            stale.unlink()
        for key in keys:
            with whole_file(cache / bucket / key) as temporary:
                client.download_file(bucket, key, str(temporary))
    return local


def publish(directory: Path, address: str, last: str) -> None:
    """Copy all files of ``directory`` below an s3:// address; ``last`` goes last, so that it vouches for the rest.

    Raises:
        UserError: the store refuses.
    """
    bucket, prefix = split_address(address)
    files = sorted((p for p in directory.rglob("*") if p.is_file()), key=lambda p: (p.name == last, str(p)))
    with _store_errors(address):
        client = _client()
        for file in files:
            key = f"{prefix.rstrip('/')}/{file.relative_to(directory).as_posix()}"
            client.upload_file(str(file), bucket, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"})


def split_address(address: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://BUCKET/PREFIX``.

    Raises:
        UserError: one of the two is missing.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise UserError(f"{address} is not s3://BUCKET/PREFIX")
    return bucket, key


def _client() -> BaseClient:
    import boto3
    from botocore.config import Config

    own_endpoint = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    settings = {"addressing_style": "path"} if own_endpoint else {}
    return boto3.client("s3", config=Config(signature_version="s3v4", s3=settings, retries={"mode": "standard"}))


@contextmanager
def _store_errors(address: str | Path) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise UserError(f"{address}: the S3 store refused: {error}") from None
