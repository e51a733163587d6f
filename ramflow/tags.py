"""The tag table: the one source of truth for tag ids, names, thresholds and status."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ramflow.errors import UserError

Status = Literal["present", "rare", "missing"]

COLUMNS = ("id", "name", "count", "status", "threshold")


@dataclass(frozen=True)
class TagTable:
    """Tags by id: the id of a tag is its position, from 0, and never changes (F08).

    ``counts`` are positive images a tag, ``status`` follows from them (missing: none, rare: few), ``thresholds``
    are scores in 0..1 above which a tag is said of an image. Empty lists mean not known yet.
    """

    names: list[str]
    counts: list[int] = field(default_factory=list)
    status: list[Status] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """``sha256:...`` of the names in order: equal digests mean equal ids."""
        return "sha256:" + hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    @property
    def missing(self) -> list[str]:
        """Names of the tags without a single image."""
        return [name for name, status in zip(self.names, self.status, strict=False) if status == "missing"]

    def duplicates(self) -> list[str]:
        """Names that stand on more than one line."""
        return [name for name, count in Counter(self.names).items() if count > 1]

    def with_counts(self, counts: list[int], rare_below: int) -> TagTable:
        """The same tags with positive images counted; below ``rare_below`` a tag is rare, at 0 missing."""
        status: list[Status] = ["missing" if c == 0 else "rare" if c < rare_below else "present" for c in counts]
        return replace(self, counts=list(counts), status=status)

    def write(self, path: Path) -> None:
        """Write the table as CSV with the columns id, name, count, status, threshold."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i, name in enumerate(self.names):
            threshold = f"{self.thresholds[i]:.6f}" if self.thresholds else ""
            row = (self.counts[i] if self.counts else "", self.status[i] if self.status else "", threshold)
            writer.writerow((i, name, *row))
        path.write_text(text.getvalue(), encoding="utf-8")


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
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        if [int(row["id"]) for row in rows] != list(range(len(rows))):
            raise UserError(f"{path}: ids are not 0, 1, 2, ... in order; a tag's id is its line and never changes")
        table = TagTable(
            names=[row["name"] for row in rows],
            counts=[int(row["count"]) for row in rows if row["count"]],
            status=[row["status"] for row in rows if row["status"]],  # type: ignore[misc]
            thresholds=[float(row["threshold"]) for row in rows if row["threshold"]],
        )
        if any(len(column) not in (0, len(rows)) for column in (table.counts, table.status, table.thresholds)):
            raise ValueError("a column is filled in part")
        if not rows or not all(table.names) or not set(table.status) <= set(get_args(Status)):
            raise ValueError("it has no rows, an empty name, or an unknown status")
        return table
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a tag table ({error}): columns {', '.join(COLUMNS)} are expected") from None
