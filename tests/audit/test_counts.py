"""Counts of the sources: against what a recipe expects, and against an earlier audit."""

from __future__ import annotations

import copy
import json

import pytest

from ramflow.cli import main
from ramflow.errors import UserError
from ramflow.settings import AuditSettings
from ramflow.stage import execute
from ramflow.stages import AUDIT_ANNOTATIONS
from ramflow.verdict import read_verdict
from tests.audit.conftest import LIMITS
from tests.conftest import all_records

EXACT = {"records": 24, "captions": 48, "tags": 48}


def expect(**counts):
    return {"expected": {"set": {**EXACT, **counts}}, "max_count_deviation": 0.05}


def test_counts_as_expected_pass(audit_files, records):
    done = audit_files(records, **expect())
    assert done.failed() == set() and done.check("set.unexpected_count").total == 3
    assert done.verdict.metrics["sources"] == {"set": {"records": 24, "images": 24, "captions": 48, "tags": 48}}


@pytest.mark.parametrize("name", EXACT)
def test_a_count_that_is_off_stops(audit_files, records, name):
    done = audit_files(records, **expect(**{name: EXACT[name] + 4}))
    assert {f.id for f in done.verdict.failures()} == {"set.unexpected_count"}
    assert done.rows("set.unexpected_count") == [(None, f"set: {EXACT[name]} {name}, expected {EXACT[name] + 4}")]
    within = audit_files(records, **expect(**{name: EXACT[name] + 1}))
    assert within.failed() == set()


def test_a_file_that_was_cut_short_is_found(audit_files, records):
    assert len(audit_files(records[:20], **expect()).rows("set.unexpected_count")) == 3


def test_a_source_that_is_not_there_is_found(audit_files, records):
    settings = {"expected": {"coco": {"records": 1}, "set": {"records": 24}}}
    done = audit_files(records, **settings)
    assert done.rows("set.unexpected_count") == [(None, "coco: expected, and not there; the sources are set")]
    assert done.check("set.unexpected_count").total == 2


def test_records_without_image_count_and_their_captions_are_allowed_for(audit, pack_records, records):
    for record in records[:6]:
        record["image_path"] = "gone.jpg"
    data = pack_records(records)
    expected = {"train": {"records": 24, "captions": 48, "tags": 48}}
    assert "set.unexpected_count" not in audit(data, expected=expected).failed()
    done = audit(data, expected={"train": {"records": 30, "captions": 60}})
    assert done.rows("set.unexpected_count") == [
        (None, "train: 24 records, expected 30"),
        (None, "train: 36 captions, expected 45 for the 75.0% of its records that have an image"),
    ]


@pytest.fixture
def previous(tmp_path, tiny_tags):
    """The output of an earlier audit of the records, complete with verdict."""
    path = tmp_path / "before" / "set.json"
    path.parent.mkdir()
    path.write_text(json.dumps(all_records()), encoding="utf-8")
    out = tmp_path / "previous"
    execute(AUDIT_ANNOTATIONS, AuditSettings(**LIMITS), {"tags": str(tiny_tags)}, str(out),
            options={"annotations": [str(path)]})  # fmt: skip
    return out


def test_the_same_set_has_not_drifted(audit_files, records, previous):
    done = audit_files(records, inputs={"previous": previous})
    assert done.failed() == set()
    assert done.check("set.drift_counts").total == 3 and done.check("set.drift_tags").total == 1
    assert done.verdict.metrics["drift"] == {
        "set": {"records": 0.0, "captions": 0.0, "tags": 0.0, "tag_distance": 0.0, "most_changed": []}
    }


def test_a_set_that_grew_has_drifted(audit_files, records, previous):
    more = records + [r | {"image_path": f"more/{n}.jpg"} for n, r in enumerate(copy.deepcopy(records[:12]))]
    done = audit_files(more, inputs={"previous": previous})
    assert done.failed() == {"set.drift_counts"} and done.verdict.passed
    assert done.rows("set.drift_counts") == [
        (None, "set: 36 records, before 24"), (None, "set: 72 captions, before 48"), (None, "set: 72 tags, before 48"),
    ]  # fmt: skip
    assert audit_files(more, inputs={"previous": previous}, max_drift=0.5).failed() == set()


def test_a_source_that_came_or_went_has_drifted(audit_files, records, previous):
    done = audit_files({"other.json": records}, inputs={"previous": previous})
    assert [said for _, said in done.rows("set.drift_counts")] == [
        "other: 24 records, before 0", "other: 48 captions, before 0", "other: 48 tags, before 0",
        "set: 0 captions, before 48", "set: 0 records, before 24", "set: 0 tags, before 48",
    ]  # fmt: skip
    assert done.failed() == {"set.drift_counts"}


def test_other_tags_have_drifted(audit_files, records, previous):
    """A quarter of all tags is another one: the circles have become unicorns."""
    for record in records:
        record["union_label_id"] = [5 if i == 0 else i for i in record["union_label_id"]]
        record["parse_label_id"] = []
    done = audit_files(records, inputs={"previous": previous}, max_missing_tags_share=0.5)
    assert done.failed() == {"set.drift_tags"} and done.verdict.passed
    assert done.rows("set.drift_tags") == [
        (None, "set: 16.7% of the tags are others; most changed: "
               "circle from 16.667% to 0.000%; unicorn from 0.000% to 16.667%")
    ]  # fmt: skip
    assert audit_files(records, inputs={"previous": previous}, max_drift=0.2).failed() == set()


def test_a_list_in_another_order_has_not_drifted(audit_files, records, previous, tmp_path):
    """Tags are compared by name."""
    tags = tmp_path / "tags.txt"
    tags.write_text("unicorn\nblue\nred\ntriangle\nsquare\ncircle", encoding="utf-8")
    for record in records:
        record["union_label_id"] = [5 - i for i in record["union_label_id"]]
        record["parse_label_id"] = []
    done = audit_files(records, tags=tags, inputs={"previous": previous})
    assert "set.drift_tags" not in done.failed()


def test_an_output_without_counts_is_one_line(audit_files, records, previous):
    (previous / "tag_counts.parquet").unlink()
    with pytest.raises(UserError, match=r"previous is no audit that can be compared with .*audit that version again"):
        audit_files(records, inputs={"previous": previous})


def test_positives_are_counted_by_source_split_and_tag(audit_files, records):
    records[2]["union_label_id"] = [1, 3, 1, 3, 99]
    records[2]["parse_label_id"] = []
    done = audit_files({"a.json": records[:12], "validation=b.json": records[12:]})
    assert done.counts.columns == ["source", "split", "id", "positives"]
    assert done.counts.select("source", "split").unique(maintain_order=True).rows() == [
        ("a", "train"), ("b", "validation"),
    ]  # fmt: skip
    for (source, _), part in done.counts.partition_by("source", "split", as_dict=True).items():
        chosen = records[:12] if source == "a" else records[12:]
        found = [sum(i in r["union_label_id"] for r in chosen) for i in range(6)]
        assert part["id"].to_list() == list(range(6)) and part["positives"].to_list() == found
    kept = [r for n, r in enumerate(records[:12]) if n != 2]  # a record with ids outside the list is set aside
    assert done.table.counts == [sum(i in r["union_label_id"] for r in kept) for i in range(6)]


def test_as_a_command_over_another_version_that_did_not_pass(tiny_data, pack_records, records, tmp_path, capsys):
    """The earlier audit was made from other data, and said no; that is no hindrance."""
    words = ["--set", "audit.workers=1", "--set", "audit.rare_below=2"]
    before, out = tmp_path / "before", tmp_path / "out"
    assert main(["audit", "--data", str(pack_records(records[:8])), "--out", str(before), *words]) == 0
    assert "audit: NOT PASSED" in capsys.readouterr().err
    words += ["--previous", str(before), "--set", "audit.max_missing_tags_share=0.2"]
    assert main(["audit", "--data", str(tiny_data), "--out", str(out), *words]) == 0
    v = read_verdict(out)
    assert "previous" in v.inputs and v.passed
    assert "set.drift_counts" in [c.id for c in v.checks if not c.passed]


def test_the_output_of_another_stage_is_no_earlier_audit(tiny_data, tmp_path, capsys):
    assert main(["audit", "--data", str(tiny_data), "--previous", str(tiny_data), "--out", str(tmp_path / "x")]) == 2
    assert "is the output of pack, not of audit: give the right directory" in capsys.readouterr().err
