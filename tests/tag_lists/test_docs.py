"""docs/tags.md run from its first command to its last, on a small list under the names of the public files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from ramflow.cli import main
from ramflow.tags import read_tags

PAGE = Path(__file__).parents[2] / "docs" / "tags.md"
NAMES = ["cat", "dog", "cow", "zebra", "ant"]


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines]
    assert all(line[:2] == ["ramflow", "tags"] for line in words)
    return [line[1:] for line in words]


def record(ids):
    return {"image_path": "a.jpg", "caption": ["a caption"], "union_label_id": ids, "parse_label_id": [ids]}


def test_every_command_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = [{name: [f"a photo of a {name}."]} for name in NAMES]
    for name, text in {
        "ram_tag_list.txt": "\n".join(NAMES), "ram_tag_list_chinese.txt": "猫 \n狗\n牛\n斑马\n蚁\n",
        "ram_tag_list_threshold.txt": "0.65\n" * 5, "descriptions.json": json.dumps(texts),
        "sorted.txt": "\n".join(sorted([*NAMES, "okapi", "tapir"])), "unwanted.txt": "cow\nant\n",
        "short.txt": "cat\ncow\nant", "short.json": json.dumps([record([0, 1, 2])]),
        "annotations/train.json": json.dumps([record([0, 4])]),
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for words in commands():
        assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "2 of 5 names are gone (id 1 dog, id 3 zebra); 2 ids moved, the first is 2 cow, now 1" in said.out
    assert json.loads((tmp_path / "repaired" / "short.json").read_text()) == [record([0, 2, 4])]
    table = read_tags(tmp_path / "tags.csv")
    assert table.names == [*NAMES, "okapi", "tapir"] and table.dropped_names == ["tapir"]
    assert read_tags(tmp_path / "smaller.csv").dropped == [2, 4]
    assert json.loads((tmp_path / "moved" / "train.json").read_text()) == [record([1, 0])]
    assert (tmp_path / "upstream" / "ram_tag_list.txt").read_bytes() == (tmp_path / "ram_tag_list.txt").read_bytes()


def test_the_page_tells_the_verbs_and_columns_that_there_are():
    page = PAGE.read_text(encoding="utf-8")
    told = {words[1] for words in commands()}
    assert told == {"show", "import", "export", "add", "drop", "reorder", "diff", "remap"}
    for column in ("id", "name", "count", "status", "threshold", "chinese", "descriptions"):
        assert f"| `{column}` |" in page
