"""Upstream's annotation files: one JSON list of records (recognize-anything, ``datasets/train/*.json``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from ramflow.errors import UserError

TagId = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]


class Record(msgspec.Struct, frozen=True):
    """One image of an annotation file.

    ``parse_label_id`` is aligned with ``caption`` (tags parsed from that text); ``union_label_id`` is all tags of
    the image. Tag ids are line numbers of the tag list, from 0.
    """

    image_path: str
    caption: list[str] = []
    union_label_id: list[TagId] = []
    parse_label_id: list[list[TagId]] = []


def read_annotations(path: Path) -> list[Record]:
    """Read one annotation file.

    Raises:
        UserError: no such file; not a JSON list; cut off; or a record that lacks image_path or has a wrong type,
            with the number of the record.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such annotation file: {path}") from None
    if data[:64].lstrip()[:1] != b"[":
        raise UserError(f"{path} is not a JSON list of records: upstream's annotation format starts with [")
    try:
        return msgspec.json.decode(data, type=list[Record])
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        number = re.match(r"\$\[(\d+)\]", place)
        raise UserError(f"{path}: record {number[1] if number else '?'} (from 0): {message}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): the file is damaged or cut off, fetch it again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: fetch it again, or save it as UTF-8") from None
