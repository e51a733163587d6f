"""Changes of a table: which are made, and which are refused in one line."""

from __future__ import annotations

import pytest

from ramflow.errors import UserError
from ramflow.tag_lists.edit import add, drop, reorder
from ramflow.tags import TagTable

PLAIN = TagTable(["cat", "dog", "cow", "dog"])
FULL = TagTable(["cat", "dog", "cow"], thresholds=[0.1, 0.2, 0.3], chinese=["猫", "狗", "母牛"],
                descriptions=[["a cat"], ["a dog", "dogs"], ["a cow"]])  # fmt: skip


def test_a_new_tag_goes_to_the_end_with_its_columns():
    new = add(FULL, ["fox", "owl"], threshold=0.9, chinese=["狐狸", "猫头鹰"], descriptions=[["a fox"], []])
    assert new.names == ["cat", "dog", "cow", "fox", "owl"] and new.thresholds == [0.1, 0.2, 0.3, 0.9, 0.9]
    assert new.chinese[3:] == ["狐狸", "猫头鹰"] and new.descriptions[3:] == [["a fox"], []]
    assert add(FULL, ["fox"], threshold=0.5).chinese == ["猫", "狗", "母牛", ""]
    assert add(PLAIN, ["fox"], chinese=["狐狸"]).chinese == ["", "", "", "", "狐狸"]


def test_counts_are_forgotten_when_a_tag_is_added():
    assert add(PLAIN.with_counts([1, 2, 3, 4], 2), ["fox"]) == add(PLAIN, ["fox"])


def test_a_dropped_tag_comes_back_under_its_id():
    for name in ("dog", "id:1"):
        assert add(drop(FULL, ["dog"]), [name]) == FULL
    assert add(drop(FULL, ["dog", "cow"]), ["dog"]) == drop(FULL, ["cow"])


def test_a_dropped_tag_keeps_everything_but_its_status():
    dropped = drop(FULL, ["dog"])
    assert dropped.status == ["", "dropped", ""] and dropped.names == FULL.names and dropped.digest == FULL.digest
    assert dropped.table_digest != FULL.table_digest
    assert drop(FULL.with_counts([0, 9, 9], 2), ["dog"]).status == ["missing", "dropped", "present"]


def test_one_of_two_lines_of_a_name_is_dropped_by_its_id():
    assert drop(PLAIN, ["id:3"]).dropped == [3]
    with pytest.raises(UserError, match=r"'dog' stands on 2 lines \(id 1 dog, id 3 dog\): say which, as id:NUMBER"):
        drop(PLAIN, ["dog"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: drop(FULL, ["Cat"]), "'Cat' is not in the list: is 'cat' meant?"),
        (lambda: drop(FULL, ["zebra crossing"]), "'zebra crossing' is not in the list, as it is spelt"),
        (lambda: drop(FULL, ["id:3"]), "id:3: ids are 0 to 2"),
        (lambda: drop(FULL, ["id:-1"]), "id:-1: ids are 0 to 2"),
        (lambda: drop(FULL, ["id:x"]), "id:x: ids are 0 to 2"),
        (lambda: drop(drop(FULL, ["dog"]), ["dog"]), "id 1 'dog' is dropped already: leave it out"),
        (lambda: drop(FULL, ["cat", "dog", "cow"]), "no tag would be left: drop fewer"),
        (lambda: add(FULL, ["dog"], threshold=0.5), "'dog' is in the list, its id is 1: leave it out"),
        (lambda: add(FULL, ["id:1"]), "id 1 'dog' is not dropped: leave it out"),
        (lambda: add(PLAIN, ["fox", "fox"]), "'fox' is given twice: give every name once"),
        (lambda: add(PLAIN, [" fox"]), "' fox' is no name of a tag"),
        (lambda: add(PLAIN, [""]), "'' is no name of a tag"),
        (lambda: add(PLAIN, ["a\nb"]), "is no name of a tag"),
        (lambda: add(FULL, ["fox"]), "the list has thresholds: give one for 'fox' too, --threshold NUMBER"),
        (lambda: add(PLAIN, ["fox"], threshold=0.5), "the list has no thresholds: leave --threshold out"),
        (lambda: add(drop(FULL, ["dog"]), ["fox", "dog"], threshold=0.5, chinese=["狐狸", "狗"]), "is a dropped tag"),
        (lambda: add(drop(PLAIN, ["id:1", "id:3"]), ["dog"]), "'dog' stands on 2 lines"),
        (lambda: reorder(FULL, ["cow", "cat"]), "the new order lacks 1 of 3 names (id 1 dog)"),
        (lambda: reorder(FULL, ["cow", "cat", "dog", "fox"]), "the new order has id 3 fox, which the list has not"),
        (lambda: reorder(PLAIN, ["dog", "cat", "cow"]), "the new order lacks 1 of 4 names (id 3 dog)"),
    ],
)
def test_what_cannot_be_meant_is_one_line(change, says):
    with pytest.raises(UserError) as refused:
        change()
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_another_order_takes_all_columns_along():
    table = drop(FULL.with_counts([7, 8, 9], 2), ["cat"])
    new = reorder(table, ["cow", "cat", "dog"])
    assert new == TagTable(["cow", "cat", "dog"], [9, 7, 8], ["present", "dropped", "present"], [0.3, 0.1, 0.2],
                           ["母牛", "猫", "狗"], [["a cow"], ["a cat"], ["a dog", "dogs"]])  # fmt: skip
    assert reorder(new, table.names) == table
    assert reorder(PLAIN, ["dog", "dog", "cow", "cat"]).names == ["dog", "dog", "cow", "cat"]
