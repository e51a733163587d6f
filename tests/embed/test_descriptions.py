"""Descriptions are looked up by tag name, whatever the form of the file, and what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramflow.embed.descriptions import describe, read_descriptions
from ramflow.errors import UserError
from ramflow.settings import read_settings
from ramflow.tags import TagTable

PUBLIC = Path(__file__).parents[3] / "shared" / "reference" / "recognize-anything"
TABLE = TagTable(["a", "b"])


def file(tmp_path, content, name="d.json"):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path / name


def test_order_is_the_tag_lists_not_the_files(tmp_path):
    path = file(tmp_path, '[{"b": ["b1", "b2"]}, {"a": ["a1"]}]')
    assert describe(TABLE, path=path).texts == [["a1"], ["b1", "b2"]]
    assert describe(TagTable(["b", "a", "b"]), path=path).texts == [["b1", "b2"], ["a1"], ["b1", "b2"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '[{"a": ["a 1", "a 2"]}, {"b": "b 1"}]'),
        ("d.json", '{"a": ["a 1", "a 2"], "b": "b 1"}'),
        ("d.tsv", "a\ta 1\n\nb\tb 1\r\na\ta 2\n"),
        ("d.txt", "\ufeffa\ta 1\na\ta 2\nb\tb 1"),
        ("d", ' {"a": ["a 1", "a 2"], "b": ["b 1"]}'),
    ],
)
def test_all_forms_say_the_same(tmp_path, name, content):
    assert read_descriptions(file(tmp_path, content, name)) == {"a": ["a 1", "a 2"], "b": ["b 1"]}


def test_a_line_is_cut_at_its_first_tab(tmp_path):
    assert read_descriptions(file(tmp_path, "a\tone\ttwo", "d.txt")) == {"a": ["one\ttwo"]}


def test_templates_then_the_table_then_the_file(tmp_path):
    table = TagTable(["a", "{}"], descriptions=[["own a"], []])
    path = file(tmp_path, '{"a": "a1", "{}": "b1", "c": "c1"}')
    described = describe(table, ["one {}", "{}s"], path)
    assert described.texts == [["one a", "as", "own a", "a1"], ["one {}", "{}s", "b1"]]
    assert described.unknown == ["c"]


def test_where_nothing_is_given_there_is_one_template():
    assert describe(TABLE).texts == [["a photo of a a."], ["a photo of a b."]]
    assert describe(TABLE, ["{}"]).texts == [["a"], ["b"]]
    assert describe(TagTable(["a"], descriptions=[["own"]])).texts == [["own"]]


def test_uneven_numbers_stay_as_they_are(tmp_path):
    path = file(tmp_path, '{"a": ["1", "2", "3"], "b": ["", "1"]}')
    assert list(map(len, describe(TABLE, path=path).texts)) == [3, 2]


def test_tags_without_a_description_are_named(tmp_path):
    path = file(tmp_path, '{"a": ["text"], "b": [], "c": ["", "  "]}')
    with pytest.raises(UserError, match=r"no description for 3 of 4 tags: 'b', 'c', 'd'"):
        describe(TagTable(["a", "b", "c", "d"]), path=path)
    with pytest.raises(UserError, match="the tag table has no description for 1 of 2 tags: 'b'"):
        describe(TagTable(["a", "b"], descriptions=[["own"], []]))


def test_a_dropped_tag_keeps_its_place_without_a_description(tmp_path):
    table = TagTable(["a", "b"], status=["dropped", ""])
    assert describe(table, path=file(tmp_path, '{"b": "text"}')).texts == [["a photo of a a."], ["text"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1}]', "what stands at 'a' is no text and no list of texts"),
        ('[{"a": ["x", null]}]', "what stands at 'a' is no text"),
        ('[{"a": ["x"]}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["a"]', r"item 0 \(from 0\) is no object"),
        ("3", "neither a list nor an object"),
        ("[{}]", r"object 0 \(from 0\) has 0 keys"),
        ('[{"a": ["x"]}, {"b": ["x"], "c": ["x"]}]', "object 1 .* has 2 keys"),
        ('[{"a": ["x"]}, {"a": ["y"]}]', "'a' stand in it more than once"),
        ('{"a": "x", "b": "x", "a": "y"}', "'a' stand in it more than once"),
        ('{"a": "\\ud800"}', "half of a character"),
        ("", "is not JSON"),
    ],
)
def test_malformed_files_are_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read_descriptions(file(tmp_path, content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\tx\nno tab", "line 2 is not tag<TAB>text: 'no tab'"), ("\tx", "line 1 is not"), (" \n", "is empty")],
)
def test_malformed_lines_are_named_by_number(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_descriptions(file(tmp_path, content, "d.txt"))


def test_no_file_or_not_text(tmp_path):
    with pytest.raises(UserError, match="no such descriptions file"):
        read_descriptions(tmp_path / "none.json")
    (tmp_path / "d.json").write_bytes(b'[{"a": ["\xff"]}]')
    with pytest.raises(UserError, match="not UTF-8 at byte 9"):
        read_descriptions(tmp_path / "d.json")


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_without_a_place_is_one_line(template):
    with pytest.raises(UserError, match=r"embed\.templates\.0: .*one \{\} is expected"):
        read_settings(None, [f"embed.templates=['{template}']"])


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the reference folder is not beside the repository")
def test_the_public_rare_tags_file_is_read_whole():
    names = (PUBLIC / "openimages_rare_200_ram_taglist.txt").read_text().splitlines()
    described = describe(TagTable(names), path=PUBLIC / "openimages_rare_200_llm_tag_descriptions.json")
    assert [len(own) for own in described.texts] == [51] * 200
    assert described.unknown == []
