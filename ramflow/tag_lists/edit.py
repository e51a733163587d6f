"""Changes of a tag table: adding and dropping keep every id, another order is the one change that moves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from ramflow.errors import UserError
from ramflow.tag_lists.mapping import map_ids, some_tags
from ramflow.tags import TagTable, status_of

BY_ID = "id:"
SAY_WHICH = "say which, as id:NUMBER"


def add(
    table: TagTable,
    names: Sequence[str],
    *,
    threshold: float | None = None,
    chinese: Sequence[str] = (),
    descriptions: Sequence[list[str]] = (),
) -> TagTable:
    """Tags at the end of the list; a dropped one of that name is used again instead, under its old id.

    Counts are forgotten: no data was counted for this list.

    Args:
        table: the list.
        names: new names, or ``id:NUMBER`` for a dropped tag.
        threshold: of each new tag; needed where the list has thresholds.
        chinese: Chinese names, one each of ``names``; unknown where left out.
        descriptions: in the same way.

    Raises:
        UserError: a name is there already, given twice or no name; or the threshold is missing.
    """
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise UserError(f"{again[0]!r} is given twice: give every name once")
    dropped, places = set(table.dropped), [_place(table, name) for name in names]
    new = [n for n, place in enumerate(places) if place is None]
    if (chinese or descriptions) and len(new) < len(names):
        old = next(name for name, place in zip(names, places, strict=True) if place is not None)
        raise UserError(f"{old!r} is a dropped tag, which has its own: add it in a command of its own")
    if new and table.thresholds and threshold is None:
        raise UserError(f"the list has thresholds: give one for {names[new[0]]!r} too, --threshold NUMBER")
    if threshold is not None and not table.thresholds:
        raise UserError("the list has no thresholds: leave --threshold out, or import those of the other tags first")
    own_chinese = table.chinese or ([""] * len(table) if chinese else [])
    own_texts = table.descriptions or ([[] for _ in range(len(table))] if descriptions else [])
    total = len(table) + len(new)
    return TagTable(
        names=[*table.names, *(names[n] for n in new)],
        status=status_of(total, sorted(dropped - {place for place in places if place is not None})),
        thresholds=[*table.thresholds, *([threshold or 0.0] * len(new) if table.thresholds else [])],
        chinese=[*own_chinese, *((chinese[n] if chinese else "" for n in new) if own_chinese else ())],
        descriptions=[*own_texts, *((descriptions[n] if descriptions else [] for n in new) if own_texts else ())],
    )


def _place(table: TagTable, name: str) -> int | None:
    """The dropped tag that ``name`` means, None for a new one."""
    if name.startswith(BY_ID):
        place = _number(table, name)
    else:
        if name != name.strip() or not name or "\n" in name or "\r" in name:
            raise UserError(f"{name!r} is no name of a tag: one line without spaces at its ends is expected")
        same = [i for i, other in enumerate(table.names) if other == name]
        kept = [i for i in same if i not in table.dropped]
        if kept:
            raise UserError(f"{name!r} is in the list, its id is {kept[0]}: leave it out")
        if not same:
            return None
        if len(same) > 1:
            raise UserError(f"{name!r} stands on {len(same)} lines ({some_tags(table.names, same)}): {SAY_WHICH}")
        place = same[0]
    if place not in table.dropped:
        raise UserError(f"id {place} {table.names[place]!r} is not dropped: leave it out")
    return place


def drop(table: TagTable, names: Sequence[str]) -> TagTable:
    """The same list with these tags marked as dropped: ids, names and all other columns stay.

    Raises:
        UserError: a name is not in the list, on several of its lines (``id:NUMBER`` says which) or dropped already; or
            no tag would be left.
    """
    ids = [find_tag(table, name) for name in names]
    for i in ids:
        if i in table.dropped:
            raise UserError(f"id {i} {table.names[i]!r} is dropped already: leave it out")
    dropped = sorted({*table.dropped, *ids})
    if len(dropped) == len(table):
        raise UserError("no tag would be left: drop fewer")
    status = list(table.status) or status_of(len(table), dropped)
    for i in ids:
        status[i] = "dropped"
    return replace(table, status=status)


def find_tag(table: TagTable, name: str) -> int:
    """The id of a tag, given by its name or as ``id:NUMBER``.

    Raises:
        UserError: there is no such tag, or there are several.
    """
    if name.startswith(BY_ID):
        return _number(table, name)
    ids = [i for i, other in enumerate(table.names) if other == name]
    if not ids:
        near = get_close_matches(name, table.names, n=1)
        raise UserError(f"{name!r} is not in the list" + (f": is {near[0]!r} meant?" if near else ", as it is spelt"))
    if len(ids) > 1:
        raise UserError(f"{name!r} stands on {len(ids)} lines ({some_tags(table.names, ids)}): {SAY_WHICH}")
    return ids[0]


def _number(table: TagTable, name: str) -> int:
    digits = name.removeprefix(BY_ID)
    if not digits.isascii() or not digits.isdigit() or int(digits) >= len(table):
        raise UserError(f"{name}: ids are 0 to {len(table) - 1}")
    return int(digits)


def reorder(table: TagTable, like: Sequence[str]) -> TagTable:
    """The same tags, with all their columns, in the order of the names ``like``: ids move.

    Raises:
        UserError: ``like`` lacks a name, or has one that the list has not.
    """
    lacking = [i for i, to in enumerate(map_ids(table.names, like)) if to is None]
    if lacking:
        raise UserError(
            f"the new order lacks {len(lacking)} of {len(table)} names ({some_tags(table.names, lacking)}): "
            "give all of them; tags that are no longer used are marked with `ramflow tags drop`, and keep their ids"
        )
    order = map_ids(like, table.names)
    strange = [n for n, i in enumerate(order) if i is None]
    if strange:
        raise UserError(f"the new order has {some_tags(like, strange)}, which the list has not: add it first")
    places = [i for i in order if i is not None]
    columns = ("names", "counts", "status", "thresholds", "chinese", "descriptions")
    return replace(table, **{name: [cells[i] for i in places] for name in columns if (cells := getattr(table, name))})
