"""Upstream's annotation files, one JSON list of records (recognize-anything, ``datasets/train``), read in pieces.

A file of a gigabyte is never held whole: it is cut between records into pieces of about 8 MiB, and each piece becomes a
frame. Decoding is strict (msgspec), and the frame is made from what was decoded, so that nothing is coerced on the way.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import polars as pl

from ramflow.data.dataset import SPLITS
from ramflow.errors import UserError

PIECE_BYTES = 8 << 20
MAX_RECORD_BYTES = 256 << 20
TAIL_BYTES = 1 << 16

TagId = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]

SCHEMA: dict[str, Any] = {
    "image_path": pl.String,
    "caption": pl.List(pl.String),
    "union_label_id": pl.List(pl.Int32),
    "parse_label_id": pl.List(pl.List(pl.Int32)),
}
"""Columns of a frame of records; none of them holds a null."""

# A quote inside a JSON string is escaped, so this is never found inside one.
BETWEEN_RECORDS = re.compile(rb'\}\s*,\s*\{\s*"(?:image_path|caption|union_label_id|parse_label_id)"\s*:')
LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


OUTSIDE = r"^(?:[/\\]|[A-Za-z]:[/\\])|(?:^|[/\\])\.\.(?:[/\\]|$)"
"""An ``image_path`` that is absolute, as on Unix or Windows, or leaves the folder of images, which it ignores (F45)."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One image of an annotation file.

    ``parse_label_id`` is aligned with ``caption`` (tags parsed from that text); ``union_label_id`` is all tags of
    the image. Tag ids are line numbers of the tag list, from 0.
    """

    image_path: str
    caption: list[str] = []
    union_label_id: list[TagId] = []
    parse_label_id: list[list[TagId]] = []


class MalformedRecord(UserError):
    """A record that lacks ``image_path`` or has a wrong type; ``index`` counts from the start of its piece."""

    def __init__(self, path: Path, index: int, message: str) -> None:
        super().__init__(f"{path}: record {index} (from 0): {message}")
        self.args = (path, index, message)  # what pickle hands to another process

    def after(self, records: int) -> MalformedRecord:
        """The same error, its number counted from the start of the file; ``records`` are before the piece."""
        path, index, message = self.args
        return MalformedRecord(path, index + records, message)

    def __str__(self) -> str:
        path, index, message = self.args
        return f"{path}: record {index} (from 0): {message}"


@dataclass(frozen=True)
class Piece:
    """Whole records of an annotation file, with the commas between them: ``length`` bytes from byte ``first`` on."""

    path: Path
    first: int
    length: int


def pieces(path: Path, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Cut an annotation file between records, without decoding it.

    Raises:
        UserError: no such file, not a JSON list, or cut off.
    """
    with _opened(path) as (read, size):
        head = read(0, 64).lstrip()
        if head[:1] != b"[":
            raise UserError(f"{path} is not a JSON list of records: upstream's annotation format starts with [")
        end = _end_of_list(path, read, size)
        first = read(0, 64).index(b"[") + 1
        while first < end:
            cut, following = _cut(path, read, first, end, piece_bytes)
            if read(first, min(cut - first, 64)).strip():
                yield Piece(path, first, cut - first)
            first = following


def parse(piece: Piece) -> pl.DataFrame:
    """The records of a piece, as a frame with the columns of ``SCHEMA``.

    Bytes that are not UTF-8, and halves of UTF-16 pairs, become U+FFFD, which the audit finds in captions.

    Raises:
        UserError: the JSON is damaged, or a record is malformed (:class:`MalformedRecord`).
    """
    with no_garbage_collection():
        return pl.read_json(msgspec.json.encode(decode(piece)), schema=SCHEMA)


def decode(piece: Piece) -> list[Record]:
    """The records of a piece as objects, for what needs no frame; raises as :func:`parse`."""
    with _opened(piece.path) as (read, _), no_garbage_collection():
        return _decode(b"[" + read(piece.first, piece.length) + b"]", piece.path)


def split_of(annotation: str) -> tuple[str, str]:
    """Split and file of ``[SPLIT=]FILE``; train where no split is named."""
    split, separator, path = annotation.partition("=")
    return (split, path) if separator and split in SPLITS else ("train", annotation)


def source_of(path: Path) -> str:
    """The name of the source that an annotation file stands for: its own, without ending."""
    return path.stem


Read = Callable[[int, int], bytes]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Read, int]]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            os.pread(descriptor, 1, 0)
            yield lambda offset, length: _pread(descriptor, offset, length), size
        finally:
            os.close(descriptor)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such annotation file: {path}") from None


def _pread(descriptor: int, offset: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):  # one call reads 2 GiB at most
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def _end_of_list(path: Path, read: Read, size: int) -> int:
    tail = read(max(0, size - TAIL_BYTES), TAIL_BYTES).rstrip()
    if not tail.endswith(b"]"):
        raise UserError(f"{path} does not end with ]: the file is damaged or cut off, fetch it again")
    return max(0, size - TAIL_BYTES) + len(tail) - 1


def _cut(path: Path, read: Read, first: int, end: int, piece_bytes: int) -> tuple[int, int]:
    """Where the piece that starts at ``first`` ends, and where the next one starts."""
    while first + piece_bytes < end:
        for start in (max(first, first + piece_bytes - TAIL_BYTES), first):
            window = read(start, first + piece_bytes - start)
            if found := list(BETWEEN_RECORDS.finditer(window)):
                last = found[-1]
                return start + last.start() + 1, start + window.index(b"{", last.start())
        piece_bytes *= 2
        if piece_bytes > MAX_RECORD_BYTES:
            raise UserError(
                f"{path} is damaged: no end of a record within {MAX_RECORD_BYTES >> 20} MiB of byte {first}"
            )
    return end, end


def _decode(data: bytes, path: Path) -> list[Record]:
    try:
        return msgspec.json.decode(data, type=list[Record])
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        number = re.match(r"\$\[(\d+)\]", place)
        raise MalformedRecord(path, int(number[1]) if number else 0, message) from None
    except UnicodeDecodeError:
        return _decode(data.decode("utf-8", "replace").encode(), path)
    except msgspec.DecodeError as error:
        mended = LONE_SURROGATE.sub(lambda m: m[0] if m[2] else m[1] + rb"\ufffd", data)
        if mended != data:
            return _decode(mended, path)
        raise UserError(f"{path} is not valid JSON ({error}): the file is damaged or cut off, fetch it again") from None


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of short lists make the collector run over and over, and none of them is in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
