"""Seeded faults of the set as a whole."""

from __future__ import annotations

import shutil

import polars as pl
import pytest


def test_a_path_that_stands_twice_is_found_at_its_second_place(audit, pack_records, records):
    done = audit(pack_records([*records[:12], records[3]], records[12:18], records[18:]))
    assert done.failed() == {"set.duplicate_key", "set.duplicate_image"}
    assert done.rows("set.duplicate_key") == [("train_000000012", "the same as train_000000003 of train")]
    assert done.verdict.passed


@pytest.fixture
def copied(records, copy_of, images_dir):
    """Images in which picture ``to`` has the bytes of picture ``of``."""

    def copy(pairs):
        images = copy_of(images_dir)
        for of, to in pairs:
            shutil.copyfile(images / records[of]["image_path"], images / records[to]["image_path"])
        return images

    return copy


def test_the_same_bytes_within_a_split(audit, pack_records, records, copied):
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=copied([(2, 7), (2, 9)])))
    assert done.failed() == {"set.duplicate_image"}
    assert done.rows("set.duplicate_image") == [
        ("train_000000007", "the same as train_000000002 of train"),
        ("train_000000009", "the same as train_000000002 of train"),
    ]


def test_the_same_bytes_in_two_splits_are_leakage(audit, pack_records, records, copied):
    images = copied([(2, 13), (2, 20), (14, 21)])
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images))
    assert done.failed() == {"set.leakage"}
    assert done.rows("set.leakage") == [
        ("validation_000000001", "the same as train_000000002 of train"),
        ("test_000000002", "the same as train_000000002 of train"),
        ("test_000000003", "the same as validation_000000002 of validation"),
    ]
    assert done.quarantine["key"].to_list() == ["validation_000000001", "test_000000002", "test_000000003"]


def placeholders(records, count):
    """Make the first ``count`` records and one of test the same picture."""
    return [(0, n) for n in (*range(1, count), 20)]


def test_one_picture_with_many_captions_is_a_placeholder(audit, pack_records, records, copied):
    images = copied(placeholders(records, 4))
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images), placeholder_records=5)
    assert done.failed() == {"set.placeholder", "set.duplicate_image", "set.leakage"}
    found = [f"train_{n:09d}" for n in range(4)] + ["test_000000002"]
    said = "the picture of train_000000000 under many paths, with as many captions"
    assert done.rows("set.placeholder") == [(key, said) for key in found]
    assert done.quarantine.select("key", "check").rows() == [(key, "set.placeholder") for key in found]
    assert done.verdict.passed
    used = [i for r in records[4:12] for i in r["union_label_id"]]
    assert done.table.counts == [used.count(i) for i in range(6)]


def test_below_the_limit_it_is_a_duplicate_only(audit, pack_records, records, copied):
    images = copied(placeholders(records, 4))
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images), placeholder_records=6)
    assert done.failed() == {"set.duplicate_image", "set.leakage"}


def test_one_picture_with_one_caption_is_no_placeholder(audit, pack_records, records, copied):
    for record in records[:6]:
        record["caption"], record["parse_label_id"] = ["the same", "the same"], []
    images = copied([(0, n) for n in range(1, 6)])
    done = audit(pack_records(records, images=images), placeholder_records=5)
    assert done.failed() == {"set.duplicate_image"}


def test_an_image_with_a_record_a_caption_is_no_placeholder(audit, pack_records, records):
    """Some sets are written so: many records of one path."""
    for record in records[:8]:
        record["image_path"] = records[0]["image_path"]
    done = audit(pack_records(records), placeholder_records=5)
    assert done.failed() == {"set.duplicate_image", "set.duplicate_key"}


def test_empty_files_are_not_one_image(audit, pack_records, records, copy_of, images_dir):
    images = copy_of(images_dir)
    for n in (0, 1, 20):
        (images / records[n]["image_path"]).write_bytes(b"")
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images))
    assert done.failed() == {"images.empty"}


@pytest.mark.parametrize(
    "path", ["/data/coco/1.jpg", "\\\\server\\share\\1.jpg", "C:\\coco\\1.jpg", "../coco/1.jpg", "coco/../../1.jpg"]
)
def test_a_path_that_leaves_the_folder_is_named(audit, pack_records, records, path):
    records[3]["image_path"] = path
    done = audit(pack_records(records))
    assert done.failed() == {"set.absolute_path", "set.missing_image"}
    assert done.check("set.absolute_path").examples == [path]


def test_dots_within_a_name_are_no_way_out(audit, pack_records, records, copy_of, images_dir):
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).rename(images / "wait...what..jpg")
    records[0]["image_path"] = "wait...what..jpg"
    assert audit(pack_records(records, images=images)).failed() == set()


def test_records_without_image_are_rows_without_sample(audit, pack_records, records):
    records[1]["image_path"], records[13]["image_path"] = "gone/1.jpg", "gone/13.jpg"
    done = audit(pack_records(records[:12], records[12:18], records[18:]))
    rows = done.findings.filter(pl.col("check") == "set.missing_image")
    assert rows["image_path"].to_list() == ["gone/1.jpg", "gone/13.jpg"]
    assert rows["sample"].null_count() == rows["key"].null_count() == 2
    missing = done.check("set.missing_image")
    assert (missing.count, missing.total, missing.examples) == (2, 24, ["gone/1.jpg", "gone/13.jpg"])
    assert done.verdict.metrics["images"] == 22
