"""Annotation files whose ids point into one tag list, rewritten so that they point into another (F08).

A piece of 8 MiB is held at a time. All keys of a record but the two that hold ids keep their values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ramflow import storage
from ramflow.data.annotations import LONE_SURROGATE, MalformedRecord, Piece, no_garbage_collection, pieces, split_of
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.tag_lists.mapping import Changes
from ramflow.tag_lists.spoken import spoken

CHANGES_FILE = "changes.json"

Fields = dict[str, Any]


class _Ids(msgspec.Struct, gc=False):
    """The keys of a record that hold ids."""

    union_label_id: list[int] | msgspec.UnsetType = msgspec.UNSET
    parse_label_id: list[list[int]] | msgspec.UnsetType = msgspec.UNSET


@dataclass
class Remapped:
    """What was done to one file.

    ``ids`` and ``removed`` (by old id: the tag has no new one) count ids of ``union_label_id``; ``removed_parsed``
    those of ``parse_label_id``. ``emptied`` are records that had tags and are left with none.
    """

    records: int = 0
    changed: int = 0
    emptied: int = 0
    ids: int = 0
    removed: Counter[int] = field(default_factory=Counter)
    removed_parsed: Counter[int] = field(default_factory=Counter)

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """What ``changes.json`` holds of the file; ids as ``[old id, name, how often]``."""
        figures = {"records": self.records, "changed": self.changed, "emptied": self.emptied, "ids": self.ids}
        listed = {name: [[i, names[i], n] for i, n in sorted(getattr(self, name).items())]
                  for name in ("removed", "removed_parsed")}  # fmt: skip
        return figures | listed


def remap(
    changes: Changes, annotations: Sequence[str], out: Path, *, remove: Sequence[int] = (), anyway: bool = False
) -> list[Remapped]:
    """Write annotation files for ``changes.new`` into the folder ``out``, under their names, and ``changes.json``.

    Args:
        changes: the two lists; ids of ``annotations`` point into the old one.
        annotations: ``FILE`` or ``SPLIT=FILE``, upstream's JSON lists.
        out: a new folder, or one of an earlier run; it appears whole or not at all.
        remove: old ids that are taken out of the records, beside those whose name the new list lacks.
        anyway: also files whose captions speak of the tags that the ids mean in the new list.

    Raises:
        UserError: a file is missing or damaged, a record is malformed, or has an id outside the old list or, by its
            captions, of the new list; two files have one name; or the two lists have no name in common.
    """
    files = [Path(split_of(annotation)[1]) for annotation in annotations]
    twice = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    if twice:
        raise UserError(f"two annotation files are named {twice[0]}: remap them into two folders")
    out_of_use = set(remove)
    new_id = {i: -1 if to is None or i in out_of_use else to for i, to in enumerate(changes.map)}
    if max(new_id.values()) < 0:
        raise UserError("the two lists have no name in common: no id would be left in the annotations")
    with storage.whole_directory(out, marker=CHANGES_FILE) as partial:
        look = None if anyway else changes
        done = [_remap_file(file, partial / file.name, new_id, look) for file in files]
        described = {f.name: each.describe(changes.old.names) for f, each in zip(files, done, strict=True)}
        write_changes(changes.describe() | {"annotations": described}, partial / CHANGES_FILE)
    return done


def write_changes(content: dict[str, Any], path: Path) -> None:
    """Write what has changed, a key a line."""
    lines = (f"{msgspec.json.encode(key).decode()}: {msgspec.json.encode(content[key]).decode()}" for key in content)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _remap_file(path: Path, place: Path, new_id: dict[int, int], look: Changes | None) -> Remapped:
    done, encode = Remapped(), msgspec.json.Encoder().encode
    with place.open("wb") as file:
        file.write(b"[")
        for piece in track(pieces(path), f"tags: {path.name}, 8 MiB at a time", None):
            with no_garbage_collection():
                records, ids = _decode(piece, done.records)
                if look is not None and not done.records:
                    _check_captions(path, records, ids, look)
                _map_records(path, records, ids, new_id, done)
                file.write((b",\n" if done.records else b"\n") + b",\n".join(map(encode, records)))
            done.records += len(records)
        file.write(b"\n]\n")
    return done


def _check_captions(path: Path, records: Sequence[Fields], ids: Sequence[_Ids], changes: Changes) -> None:
    unions = [(_captions(record), own.union_label_id or []) for record, own in zip(records, ids, strict=True)]
    found = spoken(unions, changes.old.names, changes.new.names)
    if found.of_new:
        raise UserError(
            f"{path}: the ids seem to be of the new list already: captions have the names of {found.new} of "
            f"{found.ids} ids by the new list, of {found.old} by the old one; leave it, or use `remap --anyway`"
        )


def _captions(record: Fields) -> list[str]:
    try:
        return msgspec.json.decode(record.get("caption", b"[]"), type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):  # the audit's matter
        return []


def _map_records(
    path: Path, records: list[Fields], ids: Sequence[_Ids], new_id: dict[int, int], done: Remapped
) -> None:
    for number, (record, own) in enumerate(zip(records, ids, strict=True)):
        union, parsed = own.union_label_id, own.parse_label_id
        changed = False
        try:
            if union is not msgspec.UNSET:
                record["union_label_id"] = left = _mapped(union, new_id, done.removed)
                done.ids += len(union)
                done.emptied += bool(union) and not left
                changed = left != union
            if parsed is not msgspec.UNSET:
                record["parse_label_id"] = lists = [_mapped(some, new_id, done.removed_parsed) for some in parsed]
                changed = changed or lists != parsed
        except KeyError as error:
            raise MalformedRecord(
                path, done.records + number,
                f"id {error} is not in the old list, which has {len(new_id)} tags: give the list that it was made for",
            ) from None  # fmt: skip
        done.changed += changed


def _mapped(ids: list[int], new_id: dict[int, int], removed: Counter[int]) -> list[int]:
    left = [to for i in ids if (to := new_id[i]) >= 0]
    if len(left) < len(ids):
        removed.update(i for i in ids if new_id[i] < 0)
    return left


def _decode(piece: Piece, before: int) -> tuple[list[Fields], list[_Ids]]:
    """The records of a piece with all values but the ids' as they stand, and their ids; ``before`` are before it."""
    with piece.path.open("rb") as file:
        file.seek(piece.first)
        data = b"[" + file.read(piece.length) + b"]"
    try:
        return _parse(data)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        number = re.match(r"\$\[(\d+)\]", place)
        raise MalformedRecord(piece.path, before + (int(number[1]) if number else 0), message) from None
    except msgspec.DecodeError as error:
        mended = LONE_SURROGATE.sub(lambda m: m[0] if m[2] else m[1] + rb"\ufffd", data)
        if mended != data:
            return _parse(mended)
        raise UserError(f"{piece.path} is not valid JSON ({error}): the file is damaged, fetch it again") from None


def _parse(data: bytes) -> tuple[list[Fields], list[_Ids]]:
    ids = msgspec.json.decode(data, type=list[_Ids])
    return msgspec.json.decode(data, type=list[dict[str, msgspec.Raw]]), ids
