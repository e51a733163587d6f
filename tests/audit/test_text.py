"""Seeded faults in the captions: found with their caption's number; honest captions pass."""

from __future__ import annotations

import unicodedata

import pytest

CASES = [
    ("text.empty", ""),
    ("text.empty", " \u00a0\u3000"),
    ("text.control_character", "a red\x07 circle"),
    ("text.control_character", "a red circle\nand more"),
    ("text.control_character", "a red \x85 circle"),
    ("text.boilerplate", "HASH(0x83a5c0)"),
    ("text.boilerplate", "see ARRAY(0x55d0deadbeef) here"),
    ("text.boilerplate", "<PIL.Image.Image object at 0x7f1c>"),
    ("text.boilerplate", "[object Object]"),
    ("text.boilerplate", "a circle<br/>that is red"),
    ("text.boilerplate", "salt &amp; pepper"),
    ("text.boilerplate", "No description available."),
    ("text.boilerplate", "untitled"),
    ("text.boilerplate", "NULL"),
    ("text.boilerplate", "https://example.org/a?b=c"),
    ("text.boilerplate", "IMG_2044.JPG"),
    ("text.long", "word " * 31),
]

HONEST = [
    "word " * 30,
    "a hash of potatoes (0x is not a number)",
    "an untitled painting on a wall",
    "nothing to see, null island on a map",
    "5 < 7 and b > a",
    "AT&T logo; black & white",
    "a poster that says www.example.org in red",
    "the file cat.jpg printed on a mug",
    "Ein Mädchen — 女孩 👧",
    "no",
]


@pytest.mark.parametrize(("check", "caption"), CASES)
def test_a_bad_caption_is_found(audit, pack_records, records, check, caption):
    records[1]["caption"][1] = caption
    done = audit(pack_records(records))
    assert done.failed() == {check}
    [(key, detail)] = done.rows(check)
    assert key == "train_000000001" and detail.startswith("caption 1: ")
    assert not any(unicodedata.category(character) == "Cc" for character in detail)
    found = done.check(check)
    assert (found.count, found.total, found.examples) == (1, 48, ["train_000000001"])
    assert done.verdict.passed and done.quarantine.is_empty()


def test_honest_captions_pass(audit, pack_records, records):
    records[0]["caption"] = HONEST
    records[0]["parse_label_id"] = []
    assert audit(pack_records(records)).failed() == set()


def test_a_record_without_captions_is_found_once(audit, pack_records, records):
    records[3]["caption"] = records[3]["parse_label_id"] = []
    done = audit(pack_records(records))
    assert done.failed() == {"text.no_caption"}
    assert done.rows("text.no_caption")[0][0] == "train_000000003"
    assert done.verdict.metrics["captions"] == 46


def test_every_bad_caption_is_a_row_in_order(audit, pack_records, records):
    for record in records:
        record["caption"] = ["", "a caption", " "]
        record["parse_label_id"] = []
    done = audit(pack_records(records))
    assert len(done.rows("text.empty")) == 48 and len(done.check("text.empty").examples) == 10
    assert done.rows("text.empty")[:3] == [
        ("train_000000000", "caption 0: "),
        ("train_000000000", "caption 2:  "),
        ("train_000000001", "caption 0: "),
    ]
