"""Of which of two lists are the ids of annotations? Captions often name what their image shows, so they tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WORD = re.compile(r"\w+")
ENOUGH = 20
"""Captions that must name a tag before anything is said of a list."""
TIMES = 2
"""How many times as often captions must name the tags of one list as those of the other."""


class Spoken(NamedTuple):
    """Of ``ids`` that mean different tags in the two lists, how many have a name in their caption, by list."""

    ids: int
    old: int
    new: int

    @property
    def of_new(self) -> bool:
        """Whether the ids seem to be of the new list already."""
        return self.new >= ENOUGH and self.new > TIMES * self.old


def spoken(records: Iterable[tuple[list[str], list[int]]], old: Sequence[str], new: Sequence[str]) -> Spoken:
    """Look for the names of tags in captions.

    Args:
        records: captions and tag ids of each.
        old: names by id.
        new: names by id, in the other list.
    """
    told = {i: (_words([a]), _words([b])) for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b}
    ids = of_old = of_new = 0
    for captions, union in records:
        text = _words(captions)
        for names in (told[i] for i in union if i in told):
            ids += 1
            of_old += names[0] in text
            of_new += names[1] in text
    return Spoken(ids, of_old, of_new)


def _words(texts: Iterable[str]) -> str:
    """Lower-case words with a space around each, so that ``in`` finds whole words."""
    return f" {' '.join(WORD.findall(' '.join(texts).lower()))} "
