"""The tag table: the one source of truth for tag ids, names, Chinese names, thresholds, descriptions and status."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

import msgspec

from ramflow.errors import UserError

Status = Literal["", "present", "rare", "missing", "dropped"]

COLUMNS = ("id", "name", "count", "status", "threshold")
FURTHER_COLUMNS = ("chinese", "descriptions")
"""Only in tables where they are filled."""
MAX_CELL = 1 << 30

Cell = TypeVar("Cell", str, list[str])


@dataclass(frozen=True)
class TagTable:
    """Tags by id: the id of a tag is its position, from 0, and never changes (F08, F10).

    ``counts`` are positive images a tag, ``status`` follows from them (missing: none, rare: few; empty: not counted
    yet), but for dropped: such a tag is no longer used, keeps its id and name, and no other tag ever gets them.
    ``thresholds`` are scores in 0..1 above which a tag is said of an image, ``chinese`` the Chinese names, and
    ``descriptions`` texts a tag, as many as there are. Empty lists mean not known yet.
    """

    names: list[str]
    counts: list[int] = field(default_factory=list)
    status: list[Status] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    chinese: list[str] = field(default_factory=list)
    descriptions: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """``sha256:...`` of the names in order: equal digests mean equal ids."""
        return _sha256("\n".join(self.names))

    @property
    def table_digest(self) -> str:
        """``sha256:...`` of every column: that of the file which :meth:`write` writes."""
        return _sha256(self.csv())

    @property
    def missing(self) -> list[str]:
        """Names of the tags without a single image; dropped tags are not among them."""
        return [name for name, status in zip(self.names, self.status, strict=False) if status == "missing"]

    @property
    def dropped(self) -> list[int]:
        """Ids of the tags that are no longer used."""
        return [i for i, status in enumerate(self.status) if status == "dropped"]

    @property
    def dropped_names(self) -> list[str]:
        """Names of the tags that are no longer used."""
        return [self.names[i] for i in self.dropped]

    def duplicates(self) -> list[str]:
        """Names that stand on more than one line."""
        return [name for name, count in Counter(self.names).items() if count > 1]

    def with_counts(self, counts: list[int], rare_below: int) -> TagTable:
        """The same tags with positive images counted; below ``rare_below`` a tag is rare, at 0 missing."""
        status: list[Status] = ["missing" if c == 0 else "rare" if c < rare_below else "present" for c in counts]
        for i in self.dropped:
            status[i] = "dropped"
        return replace(self, counts=list(counts), status=status)

    def without_counts(self) -> TagTable:
        """The same tags, of which nothing is counted; dropped ones stay so."""
        return replace(self, counts=[], status=status_of(len(self), self.dropped))

    def csv(self) -> str:
        """The table as CSV, see :meth:`write`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        further = [name for name in FURTHER_COLUMNS if getattr(self, name)]
        writer.writerow((*COLUMNS, *further))
        for i, name in enumerate(self.names):
            threshold = f"{self.thresholds[i]:.6f}" if self.thresholds else ""
            row = [self.counts[i] if self.counts else "", self.status[i] if self.status else "", threshold]
            if self.chinese:
                row.append(self.chinese[i])
            if self.descriptions:
                row.append(json.dumps(own, ensure_ascii=False) if (own := self.descriptions[i]) else "")
            writer.writerow((i, name, *row))
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write the table as CSV with the columns id, name, count, status, threshold.

        The columns chinese, and descriptions (a JSON array a cell), follow where they are filled. Thresholds have six
        decimals.
        """
        path.write_text(self.csv(), encoding="utf-8")


def status_of(tags: int, dropped: list[int]) -> list[Status]:
    """The status of ``tags`` tags of which nothing is counted and these ids are dropped; [] where none is."""
    status: list[Status] = [""] * tags if dropped else []
    for i in dropped:
        status[i] = "dropped"
    return status


def read_tags(path: Path) -> TagTable:
    """Read a tag list: a name a line (upstream's ``ram_tag_list.txt``), or the CSV that ramflow writes.

    Raises:
        UserError: no such file, not UTF-8, an empty list or name, or a table whose ids are not 0, 1, 2, ...
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such tag list: {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save the tag list as UTF-8") from None
    if text.startswith("id,name"):
        return _read_table(text, path)
    names = text.removesuffix("\n").split("\n")
    if not text.strip():
        raise UserError(f"{path} is an empty tag list: one name a line is expected")
    for line, name in enumerate(names, 1):
        if not name.strip():
            raise UserError(f"{path}: line {line} is empty; every line is a tag, its number the tag's id")
    return TagTable(names)


def _read_table(text: str, path: Path) -> TagTable:
    csv.field_size_limit(MAX_CELL)
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        if [int(row["id"]) for row in rows] != list(range(len(rows))):
            raise UserError(f"{path}: ids are not 0, 1, 2, ... in order; a tag's id is its line and never changes")
        table = TagTable(
            names=[row["name"] for row in rows],
            counts=[int(row["count"]) for row in rows if row["count"]],
            status=cast(list[Status], _filled([row["status"] for row in rows])),
            thresholds=[float(row["threshold"]) for row in rows if row["threshold"]],
            chinese=_filled([row.get("chinese", "") for row in rows]),
            descriptions=_filled([_texts(row.get("descriptions", "")) for row in rows]),
        )
        if wrong := _wrong_with(table):
            raise ValueError(wrong)
        return table
    except (KeyError, ValueError, TypeError, csv.Error, msgspec.DecodeError) as error:
        raise UserError(f"{path} is not a tag table ({error}): columns {', '.join(COLUMNS)} are expected") from None


def _wrong_with(table: TagTable) -> str:
    known = set(table.status)
    if any(len(column) not in (0, len(table)) for column in (table.counts, table.thresholds)):
        return "a column is filled in part"
    if not table.names or not all(table.names) or not known <= set(get_args(Status)):
        return "it has no rows, an empty name, or an unknown status"
    if known == {"dropped"}:
        return "every tag is dropped"
    if "" in known and known - {"", "dropped"}:
        return "a column is filled in part"
    if not all(0 <= threshold <= 1 for threshold in table.thresholds):
        return "a threshold is not in 0 to 1"
    return ""


def _filled(cells: list[Cell]) -> list[Cell]:
    """``cells``, or nothing where all of them are empty."""
    return cells if any(cells) else []


def _texts(cell: str) -> list[str]:
    return msgspec.json.decode(cell, type=list[str]) if cell else []


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
