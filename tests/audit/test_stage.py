"""The audit as a stage: what it writes, in which order, the same every time."""

from __future__ import annotations

import json

import polars as pl
import pytest

from ramflow.audit.checks import KINDS
from ramflow.cli import main
from ramflow.errors import UserError
from ramflow.storage import sha256_tree


@pytest.fixture
def spoilt(pack_records, records, copy_of, images_dir):
    """A dataset with faults of every family."""
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).write_bytes(b"")
    (images / records[1]["image_path"]).write_bytes(b"no image")
    (images / records[13]["image_path"]).write_bytes((images / records[3]["image_path"]).read_bytes())
    records[0]["union_label_id"] = [900]
    records[2]["caption"][0] = ""
    records[4]["union_label_id"] = []
    records[5]["image_path"] = "/gone.jpg"
    return pack_records(records[:12], records[12:18], records[18:], images=images)


def test_findings_hold_every_failing_row_in_order(audit, spoilt):
    done = audit(spoilt)
    order = {kind.id: n for n, kind in enumerate(KINDS)}
    places = [(order[c], s if s is not None else 10**9, p or "", d) for c, _, s, _, p, d in done.findings.rows()]
    assert places == sorted(places) and len(places) == len(set(places))
    counts = dict(done.findings.group_by("check").len().iter_rows())
    assert counts == {c.id: c.count for c in done.verdict.checks if c.count and c.id != "images.unusable"}
    assert set(done.findings["check"].str.split(".").list.first()) == {"images", "text", "tags", "set"}
    assert done.findings.columns == ["check", "severity", "sample", "key", "image_path", "detail"]


def test_a_sample_is_quarantined_once_under_its_first_check(audit, spoilt):
    assert audit(spoilt).quarantine.rows() == [
        (0, "train_000000000", "train", "shapes/circle_red_0.jpg", "images.empty"),
        (1, "train_000000001", "train", "shapes/circle_blue_0.jpg", "images.not_an_image"),
        (12, "validation_000000001", "validation", "shapes/circle_blue_2.jpg", "set.leakage"),
    ]


def test_messages_say_what_and_where_and_what_to_do(audit, spoilt):
    done = audit(spoilt)
    for c in done.verdict.checks:
        assert c.message.startswith(f"{c.count} of {c.total} ") and "\n" not in c.message
        if not c.passed:
            fact, _, advice = c.message.partition(", listed in findings.parquet: ")
            assert fact and advice and c.examples, c.id


def test_metrics(audit, spoilt):
    assert audit(spoilt).verdict.metrics == {
        "images": 23,
        "unusable": 2,
        "quarantined": 3,
        "captions": 46,
        "tags": 6,
        "missing_tags": 1,
        "rare_tags": 0,
        "images_per_split": {"test": 6, "train": 11, "validation": 6},
        "sources": {
            "train": {"records": 12, "images": 11, "captions": 22, "tags": 19},
            "validation": {"records": 6, "images": 6, "captions": 12, "tags": 12},
            "test": {"records": 6, "images": 6, "captions": 12, "tags": 12},
        },
        "long_tail": {"positives": 16, "most": 4, "median": 2, "tags_with_half": 2, "tags_with_90_percent": 5},
    }


def test_the_same_bytes_from_any_number_of_processes(spoilt, tmp_path):
    def files(name: str, workers: int) -> dict[str, str]:
        out = str(tmp_path / name)
        assert main(["audit", "--data", str(spoilt), "--out", out, "--set", f"audit.workers={workers}"]) == 0
        return {k: v for k, v in sha256_tree(tmp_path / name).items() if k != "verdict.json"}

    assert files("one", 1) == files("two", 2) == files("three", 3)
    verdict = json.loads((tmp_path / "one" / "verdict.json").read_text())
    assert verdict["outputs"] == files("one", 1) and set(verdict["inputs"]) == {"data"}
    assert sorted(verdict["outputs"]) == [
        "findings.parquet", "quarantine.parquet", "tag_counts.parquet", "tag_status.csv",
    ]  # fmt: skip


def test_a_dataset_without_any_image_is_a_no(audit, pack_records, records):
    for record in records[:1]:
        record["image_path"] = "gone.jpg"
    done = audit(pack_records(records[:1]))
    assert {f.id for f in done.verdict.failures()} == {"images.unusable", "tags.missing"}
    assert done.verdict.metrics["images"] == 0 and done.findings["check"].to_list().count("set.missing_image") == 1


def test_no_dataset_is_one_line(audit, tmp_path):
    with pytest.raises(UserError, match="is not a packed dataset"):
        audit(tmp_path)


def test_tables_keep_their_types_when_nothing_is_found(audit, pack_records, records):
    records[0]["union_label_id"].append(5)
    done = audit(pack_records(records[:1]), rare_below=1, max_missing_tags_share=1)
    done.findings = done.findings.filter(pl.col("check") != "tags.missing")
    assert done.findings.is_empty() and done.findings.schema["sample"] == pl.Int64
    assert done.quarantine.is_empty() and done.quarantine.schema["check"] == pl.String
    assert done.verdict.passed and not done.failed()
