"""Upstream's four files: in, out, the same bytes; and each way in which they do not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramflow.errors import UserError
from ramflow.tag_lists.edit import drop
from ramflow.tag_lists.upstream import (
    CHINESE_FILE,
    DESCRIPTIONS_FILE,
    NAMES_FILE,
    THRESHOLDS_FILE,
    read_upstream,
    write_upstream,
)
from ramflow.tags import TagTable, read_tags

PUBLIC = Path(__file__).parents[3] / "shared" / "reference" / "recognize-anything"
TEXTS = [{"cat": ["a cat", "cats"]}, {"dog": []}, {"cat": ["another cat"]}]


@pytest.fixture
def files(tmp_path):
    """``files(thresholds="...")``: the arguments of ``read_upstream``, with one of the files as given."""

    def write(**changed):
        content = {"names": "cat\ndog\ncat", "chinese": "猫 \n狗\n猫咪\n", "thresholds": "0.65\n0.8\n1\n",
                   "descriptions": json.dumps(TEXTS)} | changed  # fmt: skip
        paths = {name: tmp_path / name for name in content}
        for name, text in content.items():
            paths[name].write_bytes(text if isinstance(text, bytes) else text.encode())
        return paths

    return write


def test_four_files_are_one_table_and_come_out_as_they_were(files, tmp_path):
    paths = files()
    table = read_upstream(**paths)
    assert table == TagTable(["cat", "dog", "cat"], thresholds=[0.65, 0.8, 1.0], chinese=["猫 ", "狗", "猫咪"],
                             descriptions=[["a cat", "cats"], [], ["another cat"]])  # fmt: skip
    table.write(tmp_path / "tags.csv")
    names = write_upstream(read_tags(tmp_path / "tags.csv"), tmp_path)
    assert names == [NAMES_FILE, CHINESE_FILE, THRESHOLDS_FILE, DESCRIPTIONS_FILE]
    for name, file in zip(names[:3], ("names", "chinese", "thresholds"), strict=True):
        assert (tmp_path / name).read_bytes() == paths[file].read_bytes()
    assert json.loads((tmp_path / DESCRIPTIONS_FILE).read_text()) == TEXTS


def test_only_what_is_known_is_written_and_dropped_tags_keep_their_lines(tmp_path):
    assert write_upstream(drop(TagTable(["cat", "dog"]), ["cat"]), tmp_path) == [NAMES_FILE]
    assert (tmp_path / NAMES_FILE).read_bytes() == b"cat\ndog"


def test_descriptions_are_found_by_name(files):
    other = [{"dog": ["a dog"]}, {"cat": ["a cat"]}, {"cat": ["another cat"]}]
    table = read_upstream(**files(descriptions=json.dumps(other)))
    assert table.descriptions == [["a cat"], ["a dog"], ["another cat"]]


def test_columns_are_added_to_a_table(files, tmp_path):
    paths = files()
    drop(TagTable(["cat", "dog", "cat"]), ["dog"]).write(tmp_path / "tags.csv")
    table = read_upstream(tmp_path / "tags.csv", thresholds=paths["thresholds"])
    assert table.dropped == [1] and table.thresholds == [0.65, 0.8, 1.0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"names": "cat\n\ncat"}, "names: line 2 is empty"),
        ({"chinese": "猫\n狗\n"}, "chinese has 2 lines for 3 tags: every line belongs to the tag of that line"),
        ({"chinese": "猫\n狗\n猫\n猫\n"}, "chinese has 4 lines for 3 tags"),
        ({"chinese": "猫\n \n猫\n"}, "chinese: line 2 is empty"),
        ({"chinese": "猫\n狗\n猫\n\n"}, "chinese: line 4 is empty"),
        ({"chinese": "猫\n狗".encode("gb18030")}, "chinese is not UTF-8 at byte 3: save it as UTF-8"),
        ({"thresholds": "0.65\n0.8\n"}, "thresholds has 2 lines for 3 tags"),
        ({"thresholds": "0.65\n\n0.8\n"}, "thresholds: line 2 is empty"),
        ({"thresholds": "0.65\nhigh\n1\n"}, "thresholds: line 2 is 'high', not a number of 0 to 1"),
        ({"thresholds": "0.65\n0.8\n1.01\n"}, "thresholds: line 3 is '1.01', not a number of 0 to 1"),
        ({"thresholds": "-0.1\n0.8\n1\n"}, "thresholds: line 1 is '-0.1'"),
        ({"thresholds": "nan\n0.8\n1\n"}, "thresholds: line 1 is 'nan'"),
        ({"descriptions": json.dumps(TEXTS[:2])}, "descriptions has no entry for id 2 'cat'"),
        ({"descriptions": json.dumps([*TEXTS, {"cow": []}])}, "entry 3 (from 0) is of 'cow', which is no line"),
        ({"descriptions": json.dumps([*TEXTS, {"dog": []}])}, "entry 3 (from 0) is of 'dog', which is no line"),
        ({"descriptions": json.dumps([{"cat": [], "dog": []}, *TEXTS])}, "entry 0 (from 0) has 2 keys, not one"),
        ({"descriptions": json.dumps({"cat": []})}, "descriptions is not a list of objects"),
        ({"descriptions": '[{"cat": ["a", 3]}]'}, "Expected `str`, got `int`"),
        ({"descriptions": "[{"}, "descriptions is not a list of objects"),
    ],
)
def test_files_that_do_not_fit_are_one_line(files, changed, says):
    with pytest.raises(UserError) as refused:
        read_upstream(**files(**changed))
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["names", "chinese", "thresholds", "descriptions"])
def test_a_file_that_is_not_there_is_named(files, name, tmp_path):
    with pytest.raises(UserError, match=f"no such .*gone-{name}"):
        read_upstream(**(files() | {name: tmp_path / f"gone-{name}"}))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (TagTable(["cat", "dog"], chinese=["猫", ""]), "the Chinese name of id 1 is ''"),
        (TagTable(["cat", "a\ndog"]), r"the name of id 1 is 'a\ndog'"),
    ],
)
def test_what_would_shift_lines_is_not_written(table, says, tmp_path):
    with pytest.raises(UserError) as refused:
        write_upstream(table, tmp_path)
    assert says in str(refused.value) and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="upstream's lists (../shared) are not here")
def test_the_public_lists_come_out_to_the_byte(tmp_path):
    public = [PUBLIC / name for name in (NAMES_FILE, CHINESE_FILE, THRESHOLDS_FILE)]
    read_upstream(*public).write(tmp_path / "tags.csv")
    table = read_tags(tmp_path / "tags.csv")
    assert len(table) == len(table.chinese) == len(table.thresholds) == 4585
    write_upstream(table, tmp_path)
    for path in public:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="upstream's lists (../shared) are not here")
def test_the_public_descriptions_come_out_with_their_content(tmp_path):
    descriptions = PUBLIC / "openimages_rare_200_llm_tag_descriptions.json"
    read_upstream(PUBLIC / "openimages_rare_200_ram_taglist.txt", descriptions=descriptions).write(tmp_path / "t.csv")
    write_upstream(read_tags(tmp_path / "t.csv"), tmp_path)
    assert json.loads((tmp_path / DESCRIPTIONS_FILE).read_text()) == json.loads(descriptions.read_text())
