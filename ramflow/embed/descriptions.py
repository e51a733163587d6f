"""What is said of every tag: templates, the tag table's own texts, and a file of descriptions.

A file is upstream's JSON list of one-key objects (``[{"tag": ["text", ...]}, ...]``), one JSON object
(``{"tag": "text" or ["text", ...], ...}``), or a text file with a ``tag<TAB>text`` a line, where lines of a tag add up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramflow.errors import UserError
from ramflow.tags import TagTable

DEFAULT_TEMPLATE = "a photo of a {}."
SHOWN = 5
FORMS = 'a list of {"tag": ["text", ...]} or one such object is expected'


@dataclass(frozen=True)
class Described:
    """The texts of every tag in the order of the tag table; ``unknown`` are tags of the file that it does not have."""

    texts: list[list[str]]
    unknown: list[str]


def describe(table: TagTable, templates: Sequence[str] = (), path: Path | None = None) -> Described:
    """Put together what is said of every tag: templates first, then the table's texts, then the file's.

    The file is looked up by name, never by its order (F07). Where there is nothing at all, the template "a photo of
    a {}." is used; also for dropped tags that nothing else speaks of, as they keep their places.

    Args:
        table: the tags.
        templates: texts with one ``{}``, where the tag's name goes.
        path: a file of descriptions.

    Raises:
        UserError: the file cannot be read, or tags have no text with a word in it, named.
    """
    own = read_descriptions(path) if path else {}
    if not (templates or table.descriptions or path):
        templates = (DEFAULT_TEMPLATE,)
    dropped = set(table.dropped)
    texts, missing = [], []
    for tag, name in enumerate(table.names):
        known = table.descriptions[tag] if table.descriptions else []
        said = [*from_templates(templates, name), *known, *own.get(name, [])]
        if not any(text.strip() for text in said):
            said = from_templates((DEFAULT_TEMPLATE,), name)
            missing += [name] if tag not in dropped else []
        texts.append(said)
    if missing:
        where = path or "the tag table"
        raise UserError(
            f"{where} has no description for {len(missing)} of {len(table)} tags: {_some(missing)}; add them, or set "
            "embed.templates"
        )
    return Described(texts, sorted(set(own) - set(table.names)))


def from_templates(templates: Sequence[str], name: str) -> list[str]:
    """Every template with the tag's name in it."""
    return [template.replace("{}", name) for template in templates]


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """Read the texts of every tag, in the file's order.

    Raises:
        UserError: no such file, none of the three forms, or a tag that stands in a JSON file twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such descriptions file: {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8, or fetch it again") from None
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{"):
        return _read_json(text, path)
    return _read_lines(text, path)


def _read_json(text: str, path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({' '.join(str(error).split())[:200]}): fetch it again") from None
    if isinstance(content, list) and not isinstance(content, _Pairs):
        for number, item in enumerate(content):
            if not isinstance(item, _Pairs):
                raise UserError(f"{path}: item {number} (from 0) is no object: {FORMS}")
            if len(item) != 1:
                raise UserError(f"{path}: object {number} (from 0) has {len(item)} keys; one tag an object is expected")
        content = _Pairs(pair for item in content for pair in item)
    if not isinstance(content, _Pairs):
        raise UserError(f"{path} is neither a list nor an object: {FORMS}")
    texts = {tag: _texts(tag, value, path) for tag, value in content}
    if len(texts) < len(content):
        seen: set[str] = set()
        repeated = [tag for tag, _ in content if tag in seen or seen.add(tag)]  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {_some(list(dict.fromkeys(repeated)))} stand in it more than once: leave one a tag")
    return texts


class _Pairs(list[tuple[str, Any]]):
    """A JSON object whose keys may repeat; Python's own would keep the last one without a word."""


def _texts(tag: str, value: object, path: Path) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: what stands at {tag!r} is no text and no list of texts: {FORMS}")
    try:
        "".join([tag, *texts]).encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: a text at {tag!r} has half of a character (a lone surrogate): mend it") from None
    return texts


def _read_lines(text: str, path: Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        tag, tab, own = line.partition("\t")
        if not tab or not tag.strip():
            raise UserError(f"{path}: line {number} is not tag<TAB>text: {line[:60]!r}")
        texts.setdefault(tag, []).append(own)
    if not texts:
        raise UserError(f"{path} is empty: a tag<TAB>text a line, or JSON, is expected")
    return texts


def _some(tags: list[str]) -> str:
    return ", ".join(map(repr, tags[:SHOWN])) + (", ..." if len(tags) > SHOWN else "")
