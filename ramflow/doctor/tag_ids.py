"""A tag list beside the full list that it may have been made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramflow.doctor.public_list import name_hash, public_hashes
from ramflow.tag_lists.mapping import map_ids
from ramflow.tags import read_tags

DERIVED = 0.5
"""Share of names in common, of the longer of the two lists, from which on a list counts as made from the full one."""


@dataclass(frozen=True)
class TagIds:
    """A run's tag list. ``to_full[i]`` is the id in the full list of tag i, None where that has no such name."""

    path: Path
    names: list[str]
    full: str
    full_size: int
    to_full: list[int | None]

    @property
    def derived(self) -> bool:
        """Most names are the full list's, and most of the full list's are there: common words alone are no sign."""
        return sum(i is not None for i in self.to_full) >= DERIVED * max(len(self.names), self.full_size)

    @property
    def gone(self) -> list[int]:
        """Ids of the full list whose names are not in this one."""
        kept = set(self.to_full)
        return [i for i in range(self.full_size) if i not in kept]

    @property
    def moved(self) -> list[int]:
        """Ids of this list whose name has another id in the full list."""
        return [i for i, there in enumerate(self.to_full) if there is not None and there != i]

    @property
    def in_order(self) -> bool:
        """The names that are left stand in the full list's order."""
        kept = [i for i in self.to_full if i is not None]
        return kept == sorted(kept)

    def by_full_id(self) -> list[str | None]:
        """This list's names at the full list's ids; None for those that are gone."""
        names: list[str | None] = [None] * self.full_size
        for name, there in zip(self.names, self.to_full, strict=True):
            if there is not None:
                names[there] = name
        return names


def read_tag_ids(path: Path, full: Path | None = None) -> TagIds:
    """Read a tag list and place its names in the list ``full``, or in the public one.

    Raises:
        UserError: a list is missing, empty or not UTF-8.
    """
    names = read_tags(path).names
    whole: Sequence[str] = list(map(name_hash, read_tags(full).names)) if full else public_hashes()
    return TagIds(
        path, names, full.name if full else "the public list", len(whole), map_ids(list(map(name_hash, names)), whole)
    )
