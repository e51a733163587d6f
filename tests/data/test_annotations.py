"""Upstream's annotation files: cut into pieces without loss, read as they are, or refused in one line."""

from __future__ import annotations

import json
import pickle
import random

import pytest

from ramflow.data.annotations import MalformedRecord, parse, pieces, source_of, split_of
from ramflow.errors import UserError

EMPTY = {"caption": [], "union_label_id": [], "parse_label_id": []}


def read(path, piece_bytes=8 << 20):
    """All records of a file as dictionaries."""
    return [row for piece in pieces(path, piece_bytes) for row in parse(piece).iter_rows(named=True)]


def test_records_keep_their_order_and_absent_fields_are_empty(tmp_path, records):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*records, {"image_path": "only/a/path.jpg", "extra": [{"caption": 1}]}]))
    assert read(path) == [*records, {"image_path": "only/a/path.jpg", **EMPTY}]
    assert source_of(path) == "a"


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "[\n]"])
def test_an_empty_list_has_no_pieces(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert list(pieces(path)) == []


def test_any_cut_gives_the_same_records(tmp_path):
    """Captions that look like the end of a record, in any layout, at any size of piece."""
    parts = (
        '}, {"',
        '}, {"image_path": "x"',
        '"',
        "\\",
        '\\"}, {\\"caption\\":',
        "\N{GRINNING FACE}",
        "}]",
        "\n",
        "",
        "[{",
    )
    choose = random.Random(0)
    path = tmp_path / "a.json"
    for _ in range(60):
        records = [
            {
                "image_path": f"{i}.jpg",
                "caption": [
                    "".join(choose.choices(parts, k=choose.randint(0, 4))) for _ in range(choose.randint(0, 3))
                ],
                "union_label_id": [choose.randint(-5, 5000) for _ in range(choose.randint(0, 4))],
                "parse_label_id": [[1]] * choose.randint(0, 2),
            }
            for i in range(choose.randint(0, 20))
        ]
        path.write_text(json.dumps(records, indent=choose.choice([None, 1]), ensure_ascii=choose.choice([True, False])))
        cut = list(pieces(path, choose.choice([64, 300])))
        assert [
            row for piece in cut for row in parse(pickle.loads(pickle.dumps(piece))).iter_rows(named=True)
        ] == records
        assert len(cut) > 1 or path.stat().st_size < 2000


def test_a_file_is_never_held_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"image_path": f"{i}.jpg", **EMPTY} for i in range(2000)]))
    assert max(piece.length for piece in pieces(path, 4096)) <= 4096
    assert max(map(len, (parse(piece) for piece in pieces(path, 4096)))) < 100


def test_what_is_no_unicode_becomes_the_replacement_character(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(
        b'[{"image_path": "a.jpg", "caption": ["caf\xe9", "half \\ud83d pair", "\\ud83d\\ude00 \\\\ud800"]}]'
    )
    assert read(path)[0]["caption"] == ["caf\ufffd", "half \ufffd pair", "\U0001f600 \\ud800"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"image_path": "a.jpg", "caption": ["cut o', "damaged or cut off"),
        (b'[{"image_path": "a.jpg"}', "damaged or cut off"),
        (b'{"image_path": "a.jpg"}', "not a JSON list"),
        (b"", "not a JSON list"),
        (b"<html>not found</html>", "not a JSON list"),
        (b'[{"image_path": "a.jpg"}, {"caption": ["no path"]}]', "record 1 (from 0): Object missing required field"),
        (b'[{"image_path": "a.jpg", "union_label_id": ["3"]}]', "record 0 (from 0): Expected `int`, got `str`"),
        (b'[{"image_path": "a.jpg", "union_label_id": [1e30]}]', "record 0 (from 0)"),
        (b'[{"image_path": "a.jpg", "union_label_id": [9999999999999999999999]}]', "record 0 (from 0)"),
        (b'[{"image_path": "a.jpg", "union_label_id": null}]', "record 0 (from 0)"),
        (b'[{"image_path": "a.jpg", "caption": "one text"}]', "record 0 (from 0): Expected `array`, got `str`"),
        (b'[{"image_path": "a.jpg", "parse_label_id": [3]}]', "record 0 (from 0)"),
        (b'["a.jpg"]', "record 0 (from 0): Expected `object`, got `str`"),
        (b'[{"image_path": "a.jpg"},]', "not valid JSON"),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, content, says):
    path = tmp_path / "coco.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(path)
    assert str(path) in str(refused.value) and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gone.json", "."])
def test_no_such_file(tmp_path, name):
    with pytest.raises(UserError, match="no such annotation file"):
        read(tmp_path / name)


def test_a_malformed_record_travels_and_is_numbered_from_the_start_of_the_file(tmp_path):
    error = pickle.loads(pickle.dumps(MalformedRecord(tmp_path / "a.json", 3, "Expected `str`, got `int`")))
    assert str(error.after(10)) == f"{tmp_path / 'a.json'}: record 13 (from 0): Expected `str`, got `int`"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a.json", ("train", "a.json")),
        ("test=a.json", ("test", "a.json")),
        ("x=a.json", ("train", "x=a.json")),
        ("validation=s3://bucket/a.json", ("validation", "s3://bucket/a.json")),
    ],
)
def test_a_file_may_name_its_split(given, meant):
    assert split_of(given) == meant


def test_a_record_without_end_is_no_endless_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ramflow.data.annotations.MAX_RECORD_BYTES", 1 << 16)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"image_path": "a.jpg", "caption": ["word " * 100_000]}] * 2))
    with pytest.raises(UserError, match="no end of a record within"):
        list(pieces(path, 4096))
