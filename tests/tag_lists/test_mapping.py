"""From the ids of one list to those of another."""

from __future__ import annotations

import random

import pytest

from ramflow.tag_lists.edit import add, drop
from ramflow.tag_lists.mapping import compare_tables, map_ids
from ramflow.tags import TagTable


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("abc", "abc", [0, 1, 2]),
        ("abc", "ac", [0, None, 1]),
        ("ac", "abc", [0, 2]),
        ("abc", "cab", [1, 2, 0]),
        ("aba", "aab", [0, 2, 1]),  # the n-th a is the n-th a
        ("aba", "ab", [0, 1, None]),
        ("ab", "aba", [0, 1]),
        ("a", "b", [None]),
    ],
)
def test_a_name_is_found_wherever_it_stands(old, new, expected):
    assert map_ids(list(old), list(new)) == expected


def test_there_and_back_is_where_it_started():
    names = [f"tag {n // 2}" for n in range(200)]
    other = random.Random(0).sample(names, 150)
    for old, to in enumerate(map_ids(names, other)):
        assert to is None or (other[to] == names[old] and map_ids(other, names)[to] == old)


def test_what_changed_is_listed_and_said_in_a_line():
    old = TagTable(list("abcdef"), thresholds=[0.5] * 6)
    new = TagTable(["a", "c", "e", "d", "f", "g"], thresholds=[0.5, 0.5, 0.5, 0.4, 0.5, 0.5])
    changes = compare_tables(old, new)
    assert changes.map == [0, None, 1, 3, 2, 4]
    assert (changes.added, changes.gone, changes.moved) == ([5], [1], [2, 4, 5])
    assert changes.summary() == (
        "1 of 6 names are gone (id 1 b); 1 name added (id 5 g); 3 ids moved, the first is 2 c, now 1; "
        "thresholds of 1 tag differ"
    )
    described = changes.describe()
    assert described["moved"][0] == [2, 1, "c"] and described["before"]["digest"] == old.digest
    assert described["after"]["table_digest"] == new.table_digest


def test_equal_lists_have_no_changes():
    table = TagTable(list("abca"), chinese=list("甲乙丙丁"))
    changes = compare_tables(table, table.with_counts([1, 2, 3, 4], 2))
    assert not changes.any and changes.summary() == "nothing has changed"


def test_adding_and_dropping_move_no_id():
    table = TagTable(list("abc"))
    changed = add(drop(table, ["b"]), ["d"])
    changes = compare_tables(table, changed)
    assert changes.map == [0, 1, 2] and changes.moved == [] and changes.dropped == [1] and changes.added == [3]
    assert compare_tables(changed, add(changed, ["b"])).restored == [1]
