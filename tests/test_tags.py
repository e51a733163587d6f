"""The tag table: ids are positions and stay so, whatever the list holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ramflow.errors import UserError
from ramflow.storage import sha256_file
from ramflow.tags import TagTable, read_tags

UPSTREAM = Path(__file__).parents[2] / "shared" / "reference" / "recognize-anything"


@pytest.fixture
def tag_file(tmp_path):
    def write(content: str | bytes, name: str = "tags.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("cat\ndog", ["cat", "dog"]),
        ("cat\ndog\n", ["cat", "dog"]),
        ("cat\r\ndog\r\n", ["cat", "dog"]),
        ("\ufeffcat\ndog", ["cat", "dog"]),
        ("bell tower\n3D CG rendering\n人\n", ["bell tower", "3D CG rendering", "人"]),
        ('a "b", c\nx,y', ['a "b", c', "x,y"]),
        ("one\x0bstill one\ntwo\u2028still two\x85\nthree", ["one\x0bstill one", "two\u2028still two\x85", "three"]),
    ],
)
def test_a_line_is_a_tag_and_its_number_the_id(tag_file, content, names):
    assert read_tags(tag_file(content)).names == names


def test_a_table_comes_back_as_it_was_written(tmp_path):
    names = ["cat", "the, comma", 'a "quote"', " space ", "人"]
    table = TagTable(names).with_counts([0, 1, 9, 10, 11], rare_below=10)
    assert table.status == ["missing", "rare", "rare", "present", "present"] and table.missing == ["cat"]
    for some in (TagTable(names), table, TagTable(names, thresholds=[0.0, 0.25, 0.5, 0.75, 1.0])):
        some.write(tmp_path / "tags.csv")
        assert read_tags(tmp_path / "tags.csv") == some


def test_the_digest_is_of_names_in_order_and_of_nothing_else():
    table = TagTable(["cat", "dog"])
    assert table.digest == table.with_counts([3, 0], 10).digest
    assert len({table.digest, TagTable(["dog", "cat"]).digest, TagTable(["cat"]).digest}) == 3


def test_duplicates_are_named_and_kept():
    table = TagTable(["missile", "cat", "missile"])
    assert table.duplicates() == ["missile"] and len(table) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is an empty tag list"),
        ("\n", "is an empty tag list"),
        ("cat\n\ndog", "line 2 is empty"),
        ("cat\n  \n", "line 2 is empty"),
        (b"cat\n\xff\xfe", "is not UTF-8 at byte 4"),
        ("id,name,count,status,threshold\n0,cat,,,\n2,dog,,,\n", r"ids are not 0, 1, 2, \.\.\. in order"),
        ("id,name,count,status,threshold\n", "is not a tag table"),
        ("id,name,count,status,threshold\n0,cat,1,present,\n1,dog,,,\n", "a column is filled in part"),
        ("id,name,count,status,threshold\n0,cat,1,common,\n", "an unknown status"),
        ("id,name,count,status,threshold\n0,,1,rare,\n", "an empty name"),
        ("id,name,count,status,threshold\n0,cat,many,rare,\n", "is not a tag table"),
        ("id,name\n0,cat\n", r"is not a tag table \('count'\): columns id, name, count"),
    ],
)
def test_a_bad_list_is_one_line_with_its_path(tag_file, content, says):
    path = tag_file(content)
    with pytest.raises(UserError, match=says) as refused:
        read_tags(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_no_such_list(tmp_path):
    for path in (tmp_path, tmp_path / "gone.txt"):
        with pytest.raises(UserError, match="no such tag list"):
            read_tags(path)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="upstream's lists (../shared) are not here")
@pytest.mark.parametrize(
    ("name", "count", "twice"),
    [("ram_tag_list.txt", 4585, []), ("imagenet_multi_1000_taglist.txt", 1000, ["missile", "sunglasses"])],
)
def test_upstreams_lists(name, count, twice):
    table = read_tags(UPSTREAM / name)
    assert len(table) == count and table.duplicates() == twice


FULL = TagTable(
    ["cat", "dog", "cow"],
    thresholds=[0.5, 1.0, 0.25],
    chinese=["猫 ", "狗", "母牛"],
    descriptions=[['a "cat", purring\nsoftly', "猫"], [], ["a cow"]],
)


def test_every_column_comes_back_and_only_filled_ones_are_written(tmp_path):
    FULL.write(tmp_path / "tags.csv")
    assert read_tags(tmp_path / "tags.csv") == FULL
    assert (tmp_path / "tags.csv").read_text().splitlines()[0] == "id,name,count,status,threshold,chinese,descriptions"
    assert TagTable(["cat", "dog"]).csv() == "id,name,count,status,threshold\n0,cat,,,\n1,dog,,,\n"


def test_a_cell_of_many_descriptions_is_read(tmp_path):
    long = TagTable(["cat"], descriptions=[["word " * 9000] * 10])
    long.write(tmp_path / "tags.csv")
    assert read_tags(tmp_path / "tags.csv") == long


def test_the_table_digest_is_that_of_the_file_and_of_every_column(tmp_path):
    FULL.write(tmp_path / "tags.csv")
    assert FULL.table_digest == sha256_file(tmp_path / "tags.csv")
    changed = [replace(FULL, chinese=[]), replace(FULL, thresholds=[]), replace(FULL, descriptions=[]),
               replace(FULL, status=["", "dropped", ""]), FULL.with_counts([1, 2, 3], 2)]  # fmt: skip
    assert len({table.table_digest for table in [FULL, *changed]}) == 6
    assert {table.digest for table in changed} == {FULL.digest}


def test_a_dropped_tag_stays_dropped_whatever_is_counted(tmp_path):
    table = replace(FULL, status=["", "dropped", ""])
    for counts in ([0, 9, 1], [5, 0, 5]):
        counted = table.with_counts(counts, rare_below=2)
        assert counted.status[1] == "dropped" and counted.dropped == [1] and counted.dropped_names == ["dog"]
        assert "dog" not in counted.missing and counted.counts == counts
        counted.write(tmp_path / "tags.csv")
        assert read_tags(tmp_path / "tags.csv") == counted and counted.without_counts() == table
    assert FULL.with_counts([1, 1, 1], 2).without_counts() == FULL


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0,cat,,,1.5,,", "a threshold is not in 0 to 1"),
        ("0,cat,,,nan,,", "a threshold is not in 0 to 1"),
        ("0,cat,,dropped,,,", "every tag is dropped"),
        ('0,cat,,,,,"[""a"", 3]"', "Expected `str`, got `int`"),
        ("0,cat,,,,,a cat", "is not a tag table"),
        ("0,cat,1,present,,,\n1,dog,1,,,,", "a column is filled in part"),
    ],
)
def test_a_bad_cell_is_one_line(tag_file, row, says):
    with pytest.raises(UserError, match=says) as refused:
        read_tags(tag_file(f"id,name,count,status,threshold,chinese,descriptions\n{row}\n"))
    assert "\n" not in str(refused.value)
