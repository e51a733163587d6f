"""Upstream's annotation files: read as they are, or refused in one line."""

from __future__ import annotations

import json

import pytest

from ramflow.data.annotations import Record, read_annotations
from ramflow.errors import UserError


def test_records_keep_their_order_and_absent_fields_are_empty(tmp_path, records):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*records, {"image_path": "only/a/path.jpg", "extra": 1}]), encoding="utf-8")
    read = read_annotations(path)
    assert [r.image_path for r in read[:-1]] == [r["image_path"] for r in records]
    assert read[0].caption == records[0]["caption"] and read[0].parse_label_id == records[0]["parse_label_id"]
    assert read[-1] == Record("only/a/path.jpg", [], [], [])


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
        (b'[{"image_path": "\xff.jpg"}]', "not UTF-8"),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, content, says):
    path = tmp_path / "coco.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_annotations(path)
    assert str(path) in str(refused.value) and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gone.json", "."])
def test_no_such_file(tmp_path, name):
    with pytest.raises(UserError, match="no such annotation file"):
        read_annotations(tmp_path / name)
