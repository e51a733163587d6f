"""Every verb of ``ramflow tags`` as a stranger types it."""

from __future__ import annotations

import json

import pytest

from ramflow.cli import main
from ramflow.tags import TagTable, read_tags

RECORDS = [{"image_path": "a.jpg", "caption": ["a cat"], "union_label_id": [0, 2], "parse_label_id": [[0]]}]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a list of three tags, Chinese names and thresholds, and annotations."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("cat\ndog\ncow", encoding="utf-8")
    (tmp_path / "chinese.txt").write_text("猫\n狗\n母牛\n", encoding="utf-8")
    (tmp_path / "thresholds.txt").write_text("0.5\n0.6\n0.7\n", encoding="utf-8")
    (tmp_path / "train.json").write_text(json.dumps(RECORDS), encoding="utf-8")
    return tmp_path


def tags(line, code=0):
    assert main(["tags", *line.split()]) == code


def test_import_show_export(here, capsys):
    tags("import --names list.txt --chinese chinese.txt --thresholds thresholds.txt --out tags.csv")
    assert "3 tags imported (id, name, threshold, chinese); written to tags.csv" in capsys.readouterr().err
    tags("show tags.csv")
    said = capsys.readouterr().out
    table = read_tags(here / "tags.csv")
    assert f"digest        {table.digest} " in said and f"table digest  {table.table_digest} " in said
    assert "tags          3, 0 of them dropped" in said and "columns       id, name, threshold, chinese" in said
    tags("export tags.csv --out files")
    assert (here / "files" / "ram_tag_list.txt").read_bytes() == (here / "list.txt").read_bytes()
    assert sorted(path.name for path in (here / "files").iterdir()) == [
        "ram_tag_list.txt", "ram_tag_list_chinese.txt", "ram_tag_list_threshold.txt",
    ]  # fmt: skip
    tags("export tags.csv --out files")  # once more into the same folder


def test_show_as_json(here, capsys):
    (here / "list.txt").write_text("cat\nCat\ncat\ndog", encoding="utf-8")
    tags("drop list.txt dog --out tags.csv")
    capsys.readouterr()
    tags("show tags.csv --json")
    found = json.loads(capsys.readouterr().out)
    assert found["tags"] == 4 and found["columns"] == ["status"] and found["dropped"] == [[3, "dog"]]
    assert found["duplicates"] == {"cat": [0, 2]} and found["alike_but_for_case"] == [["cat", "Cat"]]
    tags("show tags.csv")
    said = capsys.readouterr().out
    for line in ("dropped       id 3 dog", "duplicate     cat: ids 0, 2", "alike         'cat', 'Cat'"):
        assert line in said


def test_add_drop_and_use_again(here, capsys):
    tags("add list.txt fox @more.txt --out tags.csv", code=2)
    assert "no such tag list: more.txt" in capsys.readouterr().err
    (here / "more.txt").write_text("owl\nbear\n", encoding="utf-8")
    tags("add list.txt fox @more.txt --out tags.csv")
    assert read_tags(here / "tags.csv") == TagTable(["cat", "dog", "cow", "fox", "owl", "bear"])
    assert "3 names added (id 3 fox, id 4 owl, id 5 bear); written to tags.csv" in capsys.readouterr().err
    changes = json.loads((here / "tags.changes.json").read_text())
    assert changes["added"] == [[3, "fox"], [4, "owl"], [5, "bear"]] and changes["map"] == [0, 1, 2]
    tags("drop tags.csv --file more.txt --out tags.csv")
    assert read_tags(here / "tags.csv").dropped == [4, 5]
    assert json.loads((here / "tags.changes.json").read_text())["dropped"] == [[4, "owl"], [5, "bear"]]
    tags("add tags.csv owl --out tags.csv")
    assert read_tags(here / "tags.csv").dropped == [5]
    assert json.loads((here / "tags.changes.json").read_text())["restored"] == [[4, "owl"]]
    assert "1 tag restored (id 4 owl)" in capsys.readouterr().err


def test_a_new_tag_brings_its_columns(here):
    tags("import --names list.txt --chinese chinese.txt --thresholds thresholds.txt --out tags.csv")
    (here / "fox.txt").write_text("狐狸\n", encoding="utf-8")
    (here / "fox.json").write_text('[{"fox": ["a fox"]}]', encoding="utf-8")
    tags("add tags.csv fox --threshold 0.4 --chinese fox.txt --descriptions fox.json --out tags.csv")
    table = read_tags(here / "tags.csv")
    assert (table.thresholds[3], table.chinese[3], table.descriptions) == (0.4, "狐狸", [[], [], [], ["a fox"]])


def test_drop_takes_ids_out_of_annotations_on_request(here, capsys):
    tags("drop list.txt cat --annotations train.json --annotations-out cleaned --out tags.csv")
    [record] = json.loads((here / "cleaned" / "train.json").read_text())
    assert record["union_label_id"] == [2] and record["parse_label_id"] == [[]]
    assert json.loads((here / "cleaned" / "changes.json").read_text())["dropped"] == [[0, "cat"]]
    assert "ids of 1 of 1 record rewritten, 1 id taken out, 0 records left without tags" in capsys.readouterr().err


def test_another_order_moves_ids_only_when_that_is_said(here, capsys):
    (here / "order.txt").write_text("cow\ncat\ndog\n", encoding="utf-8")
    tags("reorder list.txt --like order.txt --out tags.csv", code=2)
    assert "3 ids would move, and annotations made for list.txt be wrong" in capsys.readouterr().err
    assert not (here / "tags.csv").exists()
    tags("reorder list.txt --like order.txt --renumber --out tags.csv")
    assert read_tags(here / "tags.csv").names == ["cow", "cat", "dog"]
    assert json.loads((here / "tags.changes.json").read_text())["map"] == [1, 2, 0]
    tags("reorder list.txt --like order.txt --annotations train=train.json --annotations-out moved --out tags.csv")
    [record] = json.loads((here / "moved" / "train.json").read_text())
    assert record["union_label_id"] == [1, 0] and record["parse_label_id"] == [[1]]
    tags("remap --from tags.csv --to list.txt --annotations moved/train.json --out back")
    assert json.loads((here / "back" / "train.json").read_text()) == RECORDS
    tags("reorder tags.csv --like tags.csv --out same.csv")  # no id moves


def test_diff(here, capsys):
    (here / "new.txt").write_text("cat\ncow\nfox\n", encoding="utf-8")
    tags("diff list.txt new.txt")
    assert capsys.readouterr().out == (
        "1 of 3 names are gone (id 1 dog); 1 name added (id 2 fox); 1 id moved, the first is 2 cow, now 1\n"
    )
    tags("diff list.txt new.txt --json")
    assert json.loads(capsys.readouterr().out)["map"] == [0, None, 1]
    tags("diff list.txt list.txt")
    assert capsys.readouterr().out == "nothing has changed\n"


def test_a_table_is_replaced_by_its_own_change_only(here, capsys):
    tags("drop list.txt cat --out tags.csv")
    tags("drop list.txt cat --out tags.csv")  # the same once more
    for line in ("import --names list.txt --out tags.csv", "add list.txt fox --out tags.csv"):
        tags(line, code=2)
        assert "--out tags.csv is there and holds another table" in capsys.readouterr().err
    assert read_tags(here / "tags.csv").dropped == [0]
    tags("import --names tags.csv --chinese chinese.txt --out tags.csv")
    assert read_tags(here / "tags.csv").dropped == [0] and read_tags(here / "tags.csv").chinese == ["猫", "狗", "母牛"]


def test_annotations_that_were_remapped_before_are_not_remapped_again(here, capsys):
    names = ["airliner", "cat", "dog", "cow"]
    (here / "full.txt").write_text("\n".join(names), encoding="utf-8")
    records = [{"image_path": f"{n}.jpg", "caption": [f"A {names[1 + n % 3]}."], "union_label_id": [n % 3]}
               for n in range(60)]  # fmt: skip
    (here / "train.json").write_text(json.dumps(records), encoding="utf-8")
    tags("remap --from list.txt --to full.txt --annotations train.json --out once")
    (here / "once" / "train.json").rename(here / "again.json")
    ids = [r["union_label_id"] for r in json.loads((here / "again.json").read_text())]
    assert ids == [[1 + n % 3] for n in range(60)]
    (here / "longer.txt").write_text("cat\ndog\ncow\nowl\n", encoding="utf-8")
    capsys.readouterr()
    tags("remap --from longer.txt --to full.txt --annotations again.json --out twice", code=2)
    [said] = capsys.readouterr().err.splitlines()
    assert "captions have the names of 60 of 60 ids by the new list, of 0 by the old one" in said
    assert not (here / "twice").exists()
    tags("remap --from longer.txt --to full.txt --annotations again.json --out twice --anyway")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("show gone.txt", "no such tag list: gone.txt"),
        ("import --names list.txt --chinese gone.txt --out tags.csv", "no such file: gone.txt"),
        ("import --names list.txt --thresholds chinese.txt --out tags.csv", "line 1 is '猫', not a number of 0 to 1"),
        ("import --names list.txt --out tags.txt", "--out tags.txt: a table is CSV, name it so"),
        ("add list.txt --out tags.csv", "which tags: give names, @LIST, or --file LIST"),
        ("add list.txt fox --threshold 7 --out tags.csv", "--threshold 7: a number of 0 to 1 is expected"),
        ("drop list.txt cat --annotations train.json --out tags.csv", "--annotations and --annotations-out belong"),
        ("remap --from list.txt --to list.txt --annotations train.json --out x", "the annotations need no remapping"),
        ("export list.txt --out .", "holds other files"),
    ],
)
def test_wrong_usage_is_one_line(here, capsys, line, says):
    before = sorted(here.iterdir())
    tags(line, code=2)
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("ramflow: ") and says in said
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "says"), [("drop list.txt cat", "--out"), ("rename list.txt", "rename"), ("", "VERB")]
)
def test_an_unknown_verb_or_option_is_one_line(here, capsys, line, says):
    with pytest.raises(SystemExit) as ended:
        main(["tags", *line.split()])
    [said] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and says in said
