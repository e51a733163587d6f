"""Description files are looked up by tag name, and what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramflow.embed.descriptions import arrange, read_descriptions
from ramflow.errors import UserError

PUBLIC = Path(__file__).parents[3] / "shared" / "reference" / "recognize-anything"
HERE = Path("descriptions.json")


def test_order_is_the_tag_lists_not_the_files(tmp_path):
    (tmp_path / "d.json").write_text('[{"b": ["b1", "b2"]}, {"a": ["a1"]}]')
    described = read_descriptions(tmp_path / "d.json")
    assert arrange(described, ["a", "b"], HERE) == [["a1"], ["b1", "b2"]]
    assert arrange(described, ["b", "a", "b"], HERE) == [["b1", "b2"], ["a1"], ["b1", "b2"]]


def test_tags_without_a_description_are_named():
    described = {"a": ["text"], "b": [], "c": ["", "  "]}
    with pytest.raises(UserError, match=r"no description for 3 of 4 tags: 'b', 'c', 'd'"):
        arrange(described, ["a", "b", "c", "d"], HERE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ["x"]}', "not a list"),
        ('[{"a": "x"}]', r"not a list of .*\$\[0\]"),
        ('[{"a": ["x"]}', "is not a list"),
        ("[{}]", r"object 0 \(from 0\) has 0 keys"),
        ('[{"a": ["x"]}, {"b": ["x"], "c": ["x"]}]', "object 1 .* has 2 keys"),
        ('[{"a": ["x"]}, {"a": ["y"]}]', "'a' stand in it more than once"),
        ("", "is not a list"),
    ],
)
def test_malformed_files_are_one_line(tmp_path, content, message):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_descriptions(tmp_path / "d.json")
    assert "\n" not in str(error.value)


def test_no_file_or_not_text(tmp_path):
    with pytest.raises(UserError, match="no such descriptions file"):
        read_descriptions(tmp_path / "none.json")
    (tmp_path / "d.json").write_bytes(b'[{"a": ["\xff"]}]')
    with pytest.raises(UserError, match="fetch it again"):
        read_descriptions(tmp_path / "d.json")


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the reference folder is not beside the repository")
def test_the_public_rare_tags_file_is_read_whole():
    names = (PUBLIC / "openimages_rare_200_ram_taglist.txt").read_text().splitlines()
    described = read_descriptions(PUBLIC / "openimages_rare_200_llm_tag_descriptions.json")
    assert [len(own) for own in arrange(described, names, HERE)] == [51] * 200
