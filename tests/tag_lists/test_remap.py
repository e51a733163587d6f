"""Annotations that point into one list, rewritten for another: repaired, whole, and nothing else changed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ramflow.cli import main
from ramflow.data import annotations as pieces_of
from ramflow.data.annotations import parse, pieces
from ramflow.errors import UserError
from ramflow.tag_lists.mapping import compare_tables, map_ids
from ramflow.tag_lists.remap import remap
from ramflow.tags import TagTable

PUBLIC = Path(__file__).parents[3] / "shared" / "reference" / "recognize-anything" / "ram_tag_list.txt"
SYNTHETIC = [f"tag {n}" if n % 97 else "twice" for n in range(4585)]


def public_names():
    if not PUBLIC.exists():
        pytest.skip("upstream's list (../shared) is not here")
    return PUBLIC.read_text(encoding="utf-8").split("\n")


def write_list(path, names):
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def record(n, union, parsed):
    return {"image_path": f"a/{n}.jpg", "caption": [f'a "quoted" caption, Ça {n}'] * len(parsed),
            "union_label_id": union, "parse_label_id": parsed, "url": {"of": [n, None, 1.50]}}  # fmt: skip


def some_records(tags, count, seed=0):
    chance = random.Random(seed)
    made = []
    for n in range(count):
        union = chance.sample(range(tags), min(tags, 12))
        made.append(record(n, union, [union[:3], [], union[2:7]]))
    return made


@pytest.mark.parametrize("names_of", [lambda: SYNTHETIC, public_names], ids=["synthetic", "public"])
def test_the_story_of_144_dropped_tags(names_of, tmp_path, capsys):
    """Someone took 144 of 4585 lines out of the list and re-indexed the annotations: they are repaired to the byte."""
    full = names_of()
    gone = set(random.Random(1).sample(range(37, 4585), 143)) | {36}
    kept = [i for i in range(4585) if i not in gone]
    new_id = {old: new for new, old in enumerate(kept)}
    honest = [
        record(r["image_path"], [i for i in r["union_label_id"] if i in new_id],
               [[i for i in some if i in new_id] for some in r["parse_label_id"]])
        for r in some_records(4585, 400)
    ]  # fmt: skip
    cut = [
        r | {"union_label_id": [new_id[i] for i in r["union_label_id"]],
             "parse_label_id": [[new_id[i] for i in some] for some in r["parse_label_id"]]}
        for r in honest
    ]  # fmt: skip
    (tmp_path / "cc3m.json").write_text(json.dumps(cut), encoding="utf-8")
    lists = [write_list(tmp_path / "short.txt", [full[i] for i in kept]), write_list(tmp_path / "full.txt", full)]
    assert main(["tags", "diff", str(lists[1]), str(lists[0])]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"144 of 4585 names are gone (id 36 {full[36]}, ") and "ids moved, the first is " in said
    words = ["tags", "remap", "--from", str(lists[0]), "--to", str(lists[1]), "--annotations"]
    assert main([*words, f"train={tmp_path / 'cc3m.json'}", "--out", str(tmp_path / "out")]) == 0
    repaired = json.loads((tmp_path / "out" / "cc3m.json").read_text(encoding="utf-8"))
    twice = map_ids([full[i] for i in kept], full)  # of equal names the n-th is the n-th
    if len(set(full)) == len(full):
        assert repaired == honest
    for before, after in zip(cut, repaired, strict=True):
        assert after["union_label_id"] == [twice[i] for i in before["union_label_id"]]
        assert [full[i] for i in after["union_label_id"]] == [full[kept[i]] for i in before["union_label_id"]]
    changes = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert len(changes["added"]) == 144 and changes["gone"] == [] and changes["map"] == twice
    assert changes["annotations"]["cc3m.json"] == {
        "records": 400, "changed": sum(a != b for a, b in zip(cut, repaired, strict=True)), "emptied": 0,
        "ids": sum(len(r["union_label_id"]) for r in cut), "removed": [], "removed_parsed": [],
    }  # fmt: skip


OLD, NEW = TagTable(list("abcd")), TagTable(list("dbxa"))


@pytest.fixture
def written(tmp_path):
    def write(content, name="a.json"):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name).write_bytes(text)
        return str(tmp_path / name)

    return write


def test_ids_without_a_new_tag_are_taken_out_and_counted(written, tmp_path):
    ids = [([0, 2, 3], [[2], [0, 2]]), ([2], [[2]]), ([1], [[1]]), ([], [])]
    file = written([record(n, union, parsed) for n, (union, parsed) in enumerate(ids)])
    [done] = remap(compare_tables(OLD, NEW), [file], tmp_path / "out")
    after = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [r["union_label_id"] for r in after] == [[3, 0], [], [1], []]
    assert [r["parse_label_id"] for r in after] == [[[], [3]], [[]], [[1]], []]
    assert (done.records, done.changed, done.emptied, done.ids) == (4, 2, 1, 5)
    told = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert told["annotations"]["a.json"]["removed"] == [[2, "c", 2]]
    assert told["annotations"]["a.json"]["removed_parsed"] == [[2, "c", 3]]
    assert told["map"] == [3, 1, None, 0] and told["gone"] == [[2, "c"]]


def test_all_else_of_a_record_survives_to_the_byte(written, tmp_path):
    text = (
        b'[{"image_path": "a\\/\\u00e9.jpg", "caption": ["tab\\t \xc3\xa9"], '
        b'"union_label_id": [3], "n": 1.50e1, "x":[ {} ]}]'
    )
    remap(compare_tables(OLD, NEW), [written(text)], tmp_path / "out")
    out = (tmp_path / "out" / "a.json").read_bytes()
    for value in (b'"a\\/\\u00e9.jpg"', b'["tab\\t \xc3\xa9"]', b"1.50e1", b"[ {} ]", b'"union_label_id":[0]'):
        assert value in out
    assert b"parse_label_id" not in out
    [after], [before] = json.loads(out), json.loads(text)
    assert after == before | {"union_label_id": [0]}


def test_halves_of_utf16_pairs_become_what_the_audit_finds(written, tmp_path):
    text = b'[{"image_path": "a.jpg", "caption": ["\\ud83d cut", "\\ud83d\\ude00 whole"], "union_label_id": [3]}]'
    remap(compare_tables(OLD, NEW), [written(text)], tmp_path / "out")
    [after] = json.loads((tmp_path / "out" / "a.json").read_text())
    assert after["caption"] == ["\ufffd cut", "\U0001f600 whole"] and after["union_label_id"] == [0]


def test_a_file_in_many_pieces_is_the_same(written, tmp_path, monkeypatch):
    records = some_records(4, 3000)
    file = written(records)
    monkeypatch.setattr("ramflow.tag_lists.remap.pieces", lambda path: pieces(path, 5000))
    assert sum(1 for _ in pieces_of.pieces(Path(file), 5000)) > 100
    [done] = remap(compare_tables(OLD, NEW), [file], tmp_path / "out")
    place = {0: 3, 1: 1, 3: 0}
    assert done.records == 3000
    after = json.loads((tmp_path / "out" / "a.json").read_text())
    assert after == [
        r | {"union_label_id": [place[i] for i in r["union_label_id"] if i in place],
             "parse_label_id": [[place[i] for i in some if i in place] for some in r["parse_label_id"]]}
        for r in records
    ]  # fmt: skip
    read = [parse(piece) for piece in pieces(tmp_path / "out" / "a.json")]
    assert sum(map(len, read)) == 3000


@pytest.mark.parametrize("content", [[], [{"image_path": "a.jpg"}]])
def test_records_without_ids_and_empty_files_stay(written, tmp_path, content):
    remap(compare_tables(OLD, NEW), [written(content)], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "a.json").read_text()) == content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([record(0, [3], []), record(1, [4], [])], "record 1 (from 0): id 4 is not in the old list, which has 4 tags"),
        ([record(0, [-1], [])], "record 0 (from 0): id -1 is not in the old list"),
        ([record(0, [], [[0], [9]])], "record 0 (from 0): id 9 is not in the old list"),
        ([record(0, [0], []), record(1, ["a"], [])], "record 1 (from 0): Expected `int`, got `str`"),
        ([record(0, None, [])], "record 0 (from 0): Expected `array`, got `null`"),
        ([[]], "record 0 (from 0): Expected `object`, got `array`"),
        ({"image_path": "a.jpg"}, "is not a JSON list"),
        (b'[{"image_path": "a.jpg"}', "cut off"),
        (b'[{"image_path": "a.jpg" "b"}]', "is not valid JSON"),
    ],
)
def test_a_bad_record_is_one_line_and_nothing_is_written(written, tmp_path, content, says):
    good, bad = written([record(0, [1], [])], "good.json"), written(content)
    with pytest.raises(UserError) as refused:
        remap(compare_tables(OLD, NEW), [good, bad], tmp_path / "out")
    assert says in str(refused.value) and str(refused.value).startswith(bad) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_what_cannot_be_meant_is_refused(written, tmp_path):
    (tmp_path / "b").mkdir()
    files = [written([]), written([], "b/a.json")]
    with pytest.raises(UserError, match=r"two annotation files are named a\.json"):
        remap(compare_tables(OLD, NEW), files, tmp_path / "out")
    with pytest.raises(UserError, match="no name in common"):
        remap(compare_tables(OLD, TagTable(["q"])), files[:1], tmp_path / "out")
    with pytest.raises(UserError, match="no such annotation file"):
        remap(compare_tables(OLD, NEW), [str(tmp_path / "gone.json")], tmp_path / "out")
