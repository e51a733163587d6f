"""From the ids of one tag list to those of another, and what became of each tag on the way (F08)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramflow.tags import TagTable

SHOWN = 3


def map_ids(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """For every id of ``old`` the id of the same name in ``new``, None where it has none.

    The n-th line of a name that stands on several goes to the n-th line of that name.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for i in range(len(new) - 1, -1, -1):
        places[new[i]].append(i)
    return [places[name].pop() if places[name] else None for name in old]


@dataclass(frozen=True)
class Changes:
    """What became of the tags between two lists.

    ``map`` holds the new id of every old one, None where the line is gone. ``added`` are ids of ``new``; ``gone``,
    ``moved`` and the others are ids of ``old``. ``dropped`` tags keep their lines and are marked, ``restored`` ones are
    no longer marked. ``columns`` counts, by column, the kept tags whose cells differ.
    """

    old: TagTable
    new: TagTable
    map: list[int | None]
    added: list[int]
    gone: list[int]
    moved: list[int]
    dropped: list[int]
    restored: list[int]
    columns: dict[str, int]

    @property
    def any(self) -> bool:
        """Whether the two lists differ in anything but counts."""
        return bool(self.added or self.gone or self.moved or self.dropped or self.restored or self.columns)

    def describe(self) -> dict[str, Any]:
        """What ``changes.json`` holds; tags as ``[id, name]``, those that moved as ``[id, new id, name]``."""
        old, new = self.old, self.new
        of_old = {kind: [[i, old.names[i]] for i in getattr(self, kind)] for kind in ("gone", "dropped", "restored")}
        return {
            "before": {"tags": len(old), "digest": old.digest, "table_digest": old.table_digest},
            "after": {"tags": len(new), "digest": new.digest, "table_digest": new.table_digest},
            "added": [[i, new.names[i]] for i in self.added],
            **of_old,
            "moved": [[i, self.map[i], old.names[i]] for i in self.moved],
            "columns": self.columns,
            "duplicates": {"before": old.duplicates(), "after": new.duplicates()},
            "map": self.map,
        }

    def summary(self) -> str:
        """One line, as: 144 of 4585 names are gone (id 37 airliner, ...); 4404 ids moved, the first is ..."""
        old, new, said = self.old.names, self.new.names, []
        if self.gone:
            said.append(f"{len(self.gone)} of {len(old)} names are gone ({some_tags(old, self.gone)})")
        if self.added:
            said.append(f"{plural(len(self.added), 'name')} added ({some_tags(new, self.added)})")
        if self.dropped:
            said.append(f"{plural(len(self.dropped), 'tag')} dropped, ids kept ({some_tags(old, self.dropped)})")
        if self.restored:
            said.append(f"{plural(len(self.restored), 'tag')} restored ({some_tags(old, self.restored)})")
        if self.moved:
            said.append(f"{plural(len(self.moved), 'id')} moved, the first is {self._first_moved()}")
        said += [f"{column} of {plural(count, 'tag')} differ" for column, count in self.columns.items()]
        return "; ".join(said) or "nothing has changed"

    def _first_moved(self) -> str:
        first = self.moved[0]
        return f"{first} {self.old.names[first]}, now {self.map[first]}"


def compare_tables(old: TagTable, new: TagTable) -> Changes:
    """What is different in ``new``, line by line and column by column; counts are left aside."""
    mapped = map_ids(old.names, new.names)
    kept = {i: to for i, to in enumerate(mapped) if to is not None}
    before, after = set(old.dropped), set(new.dropped)
    columns: dict[str, int] = {}
    for column in ("chinese", "thresholds", "descriptions"):
        a, b = getattr(old, column), getattr(new, column)
        differ = sum((a[i] if a else None) != (b[to] if b else None) for i, to in kept.items())
        columns |= {column: differ} if differ else {}
    return Changes(
        old=old,
        new=new,
        map=mapped,
        added=sorted(set(range(len(new))) - set(kept.values())),
        gone=[i for i, to in enumerate(mapped) if to is None],
        moved=[i for i, to in kept.items() if i != to],
        dropped=[i for i, to in kept.items() if to in after and i not in before],
        restored=[i for i, to in kept.items() if i in before and to not in after],
        columns=columns,
    )


def some_tags(names: Sequence[str], ids: Sequence[int]) -> str:
    """The first tags of ``ids``, as text."""
    listed = ", ".join(f"id {i} {names[i]}" for i in ids[:SHOWN])
    return listed + (", ..." if len(ids) > SHOWN else "")


def plural(count: int, noun: str) -> str:
    """``1 tag``, ``2 tags``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
