"""Packing on several machines: each packs some shards of one plan into a part, and the parts are put together.

A part is a folder: its shards, ``pieces/`` (their rows of the tables), ``tags.csv``, and ``part.json``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ramflow import storage, verdict
from ramflow.data import dataset as ds
from ramflow.data.pack_verdict import MAX_MISSING, judge
from ramflow.data.shard_range import check_cover
from ramflow.data.shard_writer import Note, missing_piece, packed
from ramflow.data.tables import write_tables
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.tags import read_tags
from ramflow.verdict import Verdict

PART_FILE = "part.json"
PIECES = "pieces"


class Part(msgspec.Struct, frozen=True):
    """Shards ``first`` to ``end`` of the ``total`` of a plan; ``files`` are the digests of the part's small files."""

    plan: str
    first: int
    end: int
    total: int
    inputs: dict[str, str]
    matched: dict[str, int]
    shards: list[Note]
    files: dict[str, str] = {}
    format: int = ds.FORMAT


def write_part(directory: Path, part: Part) -> None:
    """Write ``part.json``, when all else is in ``directory``."""
    small = [directory / ds.TAGS_FILE, *sorted((directory / PIECES).iterdir())]
    files = {path.relative_to(directory).as_posix(): storage.sha256_file(path) for path in small}
    content = msgspec.json.encode(msgspec.structs.replace(part, files=files))
    (directory / PART_FILE).write_bytes(msgspec.json.format(content, indent=1) + b"\n")


def collect(parts: Sequence[Path], out: Path, *, max_missing: float = MAX_MISSING) -> Verdict:
    """Put the parts of one plan together into ``out``, the same bytes as if one run of ``pack`` had made it.

    Shards are hard links to those of the parts where the file system has them, else copies.

    Args:
        parts: their folders, in any order.
        out: the dataset directory.
        max_missing: share of records whose image may be missing before the verdict is a no.

    Raises:
        UserError: a part is damaged or of another plan, or the parts are not all shards, each once.
    """
    found = _read_parts(parts)
    claim = {"parts": [storage.sha256_file(folder / PART_FILE) for folder, _ in found]}
    with storage.whole_directory(out, marker=ds.DATASET_FILE, claim=claim) as partial:
        notes = [(folder, note) for folder, part in found for note in part.shards]
        for folder, note in track(notes, "pack: shards collected", len(notes)):
            _link(folder / note.name, partial / note.name, note)
        missing = [missing_piece(folder / PIECES, note.name) for folder, note in notes]
        tags = read_tags(found[0][0] / ds.TAGS_FILE)
        write_tables(partial, [packed(note, folder / PIECES) for folder, note in notes], missing, tags)
        result = judge(partial, [note for _, note in notes], found[0][1].inputs, found[0][1].matched, max_missing)
    verdict.announce(result, str(out))
    return result


def _read_parts(parts: Sequence[Path]) -> list[tuple[Path, Part]]:
    """Folder and content of each part, in the order of their shards."""
    found = sorted(((folder, _read_part(folder)) for folder in parts), key=lambda part: part[1].first)
    for folder, part in found:
        if part.plan != found[0][1].plan:
            raise UserError(
                f"{folder} and {found[0][0]} are parts of different plans: other annotations, images or --shard-mb"
            )
    check_cover([(folder, range(part.first, part.end)) for folder, part in found], found[0][1].total, "pack")
    return found


def _read_part(folder: Path) -> Part:
    path = folder / PART_FILE
    try:
        part = msgspec.json.decode(path.read_bytes(), type=Part)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a part, it has no {PART_FILE}: see `ramflow pack --shard-range`") from None
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is not a part of this version of ramflow ({error}): pack it again") from None
    for name, digest in part.files.items():
        if not (folder / name).is_file() or storage.sha256_file(folder / name) != digest:
            raise UserError(f"{folder / name} is gone or not what was packed: fetch the part again, or pack it again")
    for note in part.shards:
        if not (folder / note.name).is_file() or (folder / note.name).stat().st_size != note.bytes:
            raise UserError(f"{folder / note.name} is gone or cut off: fetch the part again, or pack it again")
    return part


def _link(shard: Path, place: Path, note: Note) -> None:
    if place.exists():
        return  # by an earlier run, which was stopped
    try:
        os.link(shard, place)
    except OSError:  # another file system, or one without links
        _copy(shard, place, note)


def _copy(shard: Path, place: Path, note: Note) -> None:
    digest = hashlib.sha256()
    with storage.whole_file(place) as temporary, shard.open("rb") as source, temporary.open("wb") as copy:
        while block := source.read(storage.CHUNK):
            digest.update(block)
            copy.write(block)
        if "sha256:" + digest.hexdigest() != note.sha256:
            raise UserError(f"{shard} is not what was packed (its sha256 differs): pack the part again")
