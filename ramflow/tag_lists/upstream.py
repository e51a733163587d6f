"""Upstream's form of a tag list (recognize-anything, ``ram/data``): up to four files, a line or an entry a tag.

Names and Chinese names stand one a line, thresholds a number a line; descriptions are a JSON list of objects with one
key, a name, and a list of texts. A tag is known by its line alone: where one is lacking, all that follow are shifted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ramflow.errors import UserError
from ramflow.tag_lists.mapping import map_ids
from ramflow.tags import TagTable, read_tags

NAMES_FILE = "ram_tag_list.txt"
CHINESE_FILE = "ram_tag_list_chinese.txt"
THRESHOLDS_FILE = "ram_tag_list_threshold.txt"
DESCRIPTIONS_FILE = "ram_llm_tag_descriptions.json"


def read_upstream(
    names: Path, chinese: Path | None = None, thresholds: Path | None = None, descriptions: Path | None = None
) -> TagTable:
    """One table of upstream's files; ``names`` may also be a table, whose other columns are kept.

    Raises:
        UserError: a file is missing or not UTF-8, has another number of lines than there are names, an empty line, a
            threshold that is not a number of 0 to 1, or descriptions of other tags.
    """
    table = read_tags(names)
    if chinese is not None:
        table = replace(table, chinese=read_column(chinese, len(table)))
    if thresholds is not None:
        table = replace(table, thresholds=read_thresholds(thresholds, len(table)))
    if descriptions is not None:
        table = replace(table, descriptions=read_texts(descriptions, table.names))
    return table


def read_column(path: Path, tags: int) -> list[str]:
    """A file of one line for each of ``tags`` tags; spaces at the end of a line are kept, upstream's have them.

    Raises:
        UserError: see :func:`read_upstream`.
    """
    lines = _text(path).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path}: line {number} is empty; every line belongs to the tag of that line: fill it in")
    if len(lines) != tags:
        raise UserError(
            f"{path} has {len(lines)} lines for {tags} tags: every line belongs to the tag of that line, "
            "so give the file that was made for this list"
        )
    return lines


def read_thresholds(path: Path, tags: int) -> list[float]:
    """Thresholds, a number of 0 to 1 a line, in six decimals.

    Raises:
        UserError: see :func:`read_upstream`.
    """
    return [_threshold(path, number, line) for number, line in enumerate(read_column(path, tags), 1)]


def _threshold(path: Path, number: int, line: str) -> float:
    try:
        value = float(line)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{path}: line {number} is {line.strip()[:40]!r}, not a number of 0 to 1: correct it")
    return round(value, 6)


def read_texts(path: Path, names: Sequence[str]) -> list[list[str]]:
    """The descriptions of every tag, found by its name; the n-th entry of a name belongs to its n-th line.

    Raises:
        UserError: it is not a list of objects with one key, a tag has no entry, or an entry no tag.
    """
    try:
        entries = msgspec.json.decode(_text(path), type=list[dict[str, list[str]]])
    except msgspec.DecodeError as error:
        raise UserError(
            f'{path} is not a list of objects as {{"name": ["description", ...]}} ({error}): correct it'
        ) from None
    for number, entry in enumerate(entries):
        if len(entry) != 1:
            raise UserError(f"{path}: entry {number} (from 0) has {len(entry)} keys, not one, a tag's name: correct it")
    named = [next(iter(entry)) for entry in entries]
    for number, to in enumerate(map_ids(named, names)):
        if to is None:
            raise UserError(f"{path}: entry {number} (from 0) is of {named[number]!r}, which is no line of the list")
    found = map_ids(names, named)
    for i, at in enumerate(found):
        if at is None:
            raise UserError(f"{path} has no entry for id {i} {names[i]!r}; add one, an empty list if need be")
    return [entries[at][named[at]] for at in found if at is not None]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None


def write_upstream(table: TagTable, out: Path) -> list[str]:
    """Write the files whose columns are filled into the folder ``out``; returns their names.

    Lines end as upstream's do: the names without a newline after the last one, the others with one. Dropped tags keep
    their lines, because lines are ids.

    Raises:
        UserError: a tag has no Chinese name where others have one, or a name holds a line break.
    """
    _check_lines(table.names, "name")
    files = {NAMES_FILE: "\n".join(table.names)}
    if table.chinese:
        _check_lines(table.chinese, "Chinese name")
        files[CHINESE_FILE] = "\n".join(table.chinese) + "\n"
    if table.thresholds:
        files[THRESHOLDS_FILE] = "\n".join(map(_number, table.thresholds)) + "\n"
    if table.descriptions:
        entries = [{name: texts} for name, texts in zip(table.names, table.descriptions, strict=True)]
        files[DESCRIPTIONS_FILE] = json.dumps(entries, indent=3, ensure_ascii=False)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return list(files)


def _number(threshold: float) -> str:
    return f"{threshold:.6f}".rstrip("0").rstrip(".")


def _check_lines(cells: Sequence[str], what: str) -> None:
    for i, cell in enumerate(cells):
        if not cell.strip() or "\n" in cell or "\r" in cell:
            raise UserError(f"the {what} of id {i} is {cell!r}, which is no line of a list: correct it in the table")
