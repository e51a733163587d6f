"""Pictures to tag: files, folders and s3:// addresses; found first, read and decoded a batch ahead."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from ramflow import storage
from ramflow.data.images import FORMATS, ImageFault, decode_rgb
from ramflow.errors import UserError
from ramflow.model.preprocessing import Preprocessing, to_pixels

if TYPE_CHECKING:
    from ramflow.s3 import Store

THREADS = 8


@dataclass(frozen=True)
class Picture:
    """A picture by the name that its user gave it, and how its bytes are had."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Fault:
    """What cannot be tagged, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """uint8 pixels [3, size, size] of a picture, as the model wants them."""

    name: str
    pixels: Tensor


def find_pictures(arguments: Sequence[str]) -> list[Picture | Fault]:
    """All pictures meant, in the order of the arguments; those of a folder by name.

    A file that is named is tried whatever its ending; below a folder or an s3:// prefix, files with the ending of an
    image are.
    """
    found: list[Picture | Fault] = []
    store = cache(_open_store)
    for argument in arguments:
        if storage.is_remote(argument):
            found += _remote(argument, store)
        elif argument and os.path.isdir(argument):
            found += _below(argument)
        elif argument and os.path.exists(argument):
            found.append(_file(argument))
        else:
            found.append(Fault(argument, "no such file or folder"))
    return found


def read_pictures(
    found: Sequence[Picture | Fault], preprocessing: Preprocessing, batch: int
) -> Iterator[list[Decoded | Fault]]:
    """Yield ``batch`` at a time, in order, what :func:`find_pictures` found, decoded; one batch is read ahead."""
    ahead: deque[list[Future[Decoded | Fault]]] = deque()
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(found), batch):
            ahead.append([pool.submit(_decode, one, preprocessing) for one in found[start : start + batch]])
            if len(ahead) > 1:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]


def _decode(found: Picture | Fault, preprocessing: Preprocessing) -> Decoded | Fault:
    if isinstance(found, Fault):
        return found
    try:
        return Decoded(found.name, to_pixels(preprocessing.resize(decode_rgb(found.read()))))
    except ImageFault as error:
        return Fault(found.name, f"{error.kind.replace('_', ' ')}: {error}")
    except OSError as error:
        return Fault(found.name, error.strerror or str(error))
    except UserError as error:
        return Fault(found.name, str(error).removeprefix(f"{found.name}: "))


def _file(path: str) -> Picture:
    return Picture(path, Path(path).read_bytes)


def _below(folder: str) -> list[Picture | Fault]:
    found: list[Picture | Fault] = []

    def unreadable(error: OSError) -> None:
        found.append(Fault(str(error.filename), error.strerror or str(error)))

    names = []
    for where, _, files in os.walk(folder, onerror=unreadable):
        names += [os.path.join(where, name) for name in files if _is_image(name)]
    found += map(_file, sorted(names))
    return found or [Fault(folder, "no image in this folder or below it")]


def _open_store() -> Store:
    from ramflow.s3 import Store

    return Store()


def _remote(address: str, open_store: Callable[[], Store]) -> list[Picture | Fault]:
    try:
        bucket, prefix = storage.split_address(address)
        store = open_store()
        if _is_image(prefix):  # no need to list, which not everybody may
            return [_object(store, bucket, prefix)]
        keys = [key for key, _ in store.objects(bucket, prefix)]
    except UserError as error:
        return [Fault(address, str(error).removeprefix(f"{address}: "))]
    if prefix in keys and not prefix.endswith("/"):
        return [_object(store, bucket, prefix)]
    below = [key for key in keys if key.startswith(prefix.rstrip("/") + "/") and _is_image(key)]
    return [_object(store, bucket, key) for key in below] or [Fault(address, "no such object, and no image below it")]


def _object(store: Store, bucket: str, key: str) -> Picture:
    def read() -> bytes:
        body = io.BytesIO()
        store.get(bucket, key, body)
        return body.getvalue()

    return Picture(f"s3://{bucket}/{key}", read)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _endings()


@cache
def _endings() -> frozenset[str]:
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)
