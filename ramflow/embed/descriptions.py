"""Descriptions of tags in upstream's form: a JSON list of one-key objects, ``[{"tag": ["text", ...]}, ...]``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from ramflow.errors import UserError

SHOWN = 5


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """Read the texts of every tag, in the file's order.

    Raises:
        UserError: no such file, not such a list, or a tag that stands in it twice.
    """
    try:
        objects = msgspec.json.decode(path.read_bytes(), type=list[dict[str, list[str]]])
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such descriptions file: {path}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not a list of {{"tag": ["text", ...]}} ({error}): fetch it again') from None
    for number, item in enumerate(objects):
        if len(item) != 1:
            raise UserError(f"{path}: object {number} (from 0) has {len(item)} keys; one tag an object is expected")
    repeated = [tag for tag, count in Counter(tag for item in objects for tag in item).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: {_some(repeated)} stand in it more than once: leave one object a tag")
    return {tag: texts for item in objects for tag, texts in item.items()}


def arrange(descriptions: dict[str, list[str]], names: list[str], path: Path) -> list[list[str]]:
    """The texts of every tag in the order of ``names``, looked up by name: never by the file's order (F07).

    Raises:
        UserError: tags without a description that has a word in it, named.
    """
    missing = [name for name in names if not any(text.strip() for text in descriptions.get(name, ()))]
    if missing:
        raise UserError(f"{path} has no description for {len(missing)} of {len(names)} tags: {_some(missing)}")
    return [descriptions[name] for name in names]


def _some(tags: list[str]) -> str:
    return ", ".join(map(repr, tags[:SHOWN])) + (", ..." if len(tags) > SHOWN else "")
