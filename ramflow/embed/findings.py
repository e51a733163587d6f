"""What is wrong with texts: a row of ``findings.parquet`` for every failure, and the checks that count them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ramflow import storage
from ramflow.embed.descriptions import Described
from ramflow.verdict import MAX_EXAMPLES, Check, check

FINDINGS_FILE = "findings.parquet"
SCHEMA: dict[str, Any] = {
    "check": pl.String,
    "tag": pl.Int64,
    "name": pl.String,
    "description": pl.Int64,
    "caption": pl.Int64,
    "text": pl.String,
}
"""``tag`` and ``description`` (its number within the tag) count from 0, ``caption`` is the row in
``captions.safetensors``; null where they say nothing."""
ROW_GROUP = 1 << 16

LIST_MARK = r"(?:[-*•–]|\d+[.)])"
ENDS = (".", "!", "?", "…", "。", "！", "？")
CLOSING = "\"'”’)]»*"
LEAST_WORDS = 5

Row = tuple[str, int | None, str | None, int | None, int | None, str]


@dataclass(frozen=True)
class _Kind:
    of: str
    message: str


KINDS = {
    "embed.unknown_tag": _Kind("tags", "described tags are not in the tag list and were not used"),
    "embed.description_empty": _Kind("descriptions", "descriptions have no word; they are masked"),
    "embed.description_repeated": _Kind(
        "descriptions", "descriptions repeat one of their tag; they stay, and weigh as often as they stand there"
    ),
    "embed.description_truncated": _Kind(
        "descriptions", "descriptions stop in the middle of a sentence or list; have them written again, to the end"
    ),
    "embed.description_cut": _Kind("descriptions", "descriptions are longer than the encoder's {} tokens and were cut"),
    "embed.caption_empty": _Kind("captions", "captions have no word; their vectors say nothing of their images"),
    "embed.caption_cut": _Kind("captions", "captions are longer than the encoder's {} tokens and were cut"),
}


def truncated(text: str) -> bool:
    """Whether prose stops before its end, as an answer of a language model does that ran into its length limit.

    Prose is a text that starts as a list, holds the end of a sentence, or is five words or more from a capital on;
    its end is a mark of punctuation that ends sentences, within quotes or brackets perhaps. A list that breaks off
    after the mark of an item has no end; nor has one whose items have no full stops, which cannot be told apart.
    """
    body = text.strip().rstrip(CLOSING).rstrip()
    if re.fullmatch(LIST_MARK, body.rpartition("\n")[2].strip()):
        return True
    capital = body[:1].isupper() and len(body.split()) >= LEAST_WORDS
    prose = capital or re.match(LIST_MARK, body) or re.search(r"[.!?…]\s|[。！？]", body[:-1])
    return bool(prose) and not body.endswith(ENDS)


def description_findings(described: Described, names: Sequence[str], cut: set[str]) -> pl.DataFrame:
    """Failures (``SCHEMA``) of the descriptions; ``cut`` are the texts that are over the encoder's limit."""
    rows: list[Row] = [("embed.unknown_tag", None, tag, None, None, "") for tag in described.unknown]
    for tag, (name, own) in enumerate(zip(names, described.texts, strict=True)):
        rows += [
            (f"embed.description_{what}", tag, name, number, None, text) for number, what, text in _of_tag(own, cut)
        ]
    return _frame(rows)


def _of_tag(texts: Sequence[str], cut: set[str]) -> Iterator[tuple[int, str, str]]:
    seen: set[str] = set()
    for number, text in enumerate(texts):
        if not text.strip():
            yield number, "empty", text
            continue
        if text in seen:
            yield number, "repeated", text
        seen.add(text)
        if truncated(text):
            yield number, "truncated", text
        if text in cut:
            yield number, "cut", text


def caption_findings(first: int, texts: Sequence[str], cut: Sequence[bool]) -> pl.DataFrame:
    """Failures (``SCHEMA``) of captions, the first of which is row ``first``; ``cut``: over the encoder's limit."""
    rows: list[Row] = []
    for row, (text, was_cut) in enumerate(zip(texts, cut, strict=True), first):
        rows += [("embed.caption_empty", None, None, None, row, text)] if not text.strip() else []
        rows += [("embed.caption_cut", None, None, None, row, text)] if was_cut else []
    return _frame(rows)


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def write_findings(path: Path, pieces: Iterable[Path]) -> None:
    """Join Parquet files (``SCHEMA``) into ``path``, whole or not at all, some rows in memory at a time."""
    with storage.whole_file(path) as temporary:
        rows = pl.scan_parquet(list(pieces), schema=SCHEMA)
        rows.sink_parquet(temporary, row_group_size=ROW_GROUP, maintain_order=True)


def text_checks(path: Path, described: Described, captions: int, limit: int) -> list[Check]:
    """The checks of all texts, from the findings at ``path``; ``limit`` is the encoder's, in tokens."""
    texts = described.texts
    totals = {"descriptions": sum(map(len, texts)), "captions": captions, "tags": len(texts)}
    found = pl.scan_parquet(path)
    counts = dict(found.group_by("check").len().collect(engine="streaming").iter_rows())
    checks = []
    for id, kind in KINDS.items():
        count = counts.get(id, 0)
        first = (
            found.filter(pl.col("check") == id).head(MAX_EXAMPLES).collect() if count else pl.DataFrame(schema=SCHEMA)
        )
        total = totals[kind.of] + (count if kind.of == "tags" else 0)
        message = f"{count} of {total} {kind.message.format(limit)}"
        checks.append(check(id, "warning", count, total, message, examples=[_example(row) for row in first.rows()]))
    return [*checks, _uneven_check(texts)]


def _uneven_check(texts: Sequence[Sequence[str]]) -> Check:
    most = max(map(len, texts))
    few = sum(len(own) < most for own in texts)
    message = f"{few} of {len(texts)} tags have fewer descriptions than others; the places left are masked"
    return check("embed.descriptions_uneven", "info", few, len(texts), message)


def _example(row: Row) -> str:
    _, _, name, number, caption, text = row
    if caption is not None:
        return f"row {caption}: {text}"
    return str(name) if number is None else f"{name} {number}: {text}"
