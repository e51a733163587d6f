"""The audit of annotation files alone, and of any of the faults on every record."""

from __future__ import annotations

import json

import polars as pl
import pytest

from ramflow import storage
from ramflow.audit import units
from ramflow.audit.checks import KINDS
from ramflow.audit.records import of_annotations, of_manifest
from ramflow.audit.stage import run_annotations
from ramflow.cli import main
from ramflow.data import annotations
from ramflow.errors import UserError
from ramflow.settings import AuditSettings
from ramflow.storage import sha256_tree
from ramflow.verdict import read_verdict
from tests.audit.conftest import LIMITS

WORDS = ["--set", "audit.workers=1", "--set", "audit.max_missing_tags_share=0.2"]


@pytest.fixture
def files(tmp_path, records):
    """Two annotation files, the second of validation."""
    for name, chosen in (("coco.json", records[:12]), ("vg.json", records[12:])):
        (tmp_path / name).write_text(json.dumps(chosen), encoding="utf-8")
    return [str(tmp_path / "coco.json"), f"validation={tmp_path / 'vg.json'}"]


def test_as_a_command(files, tiny_tags, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["audit", "--annotations", *files, "--tags", str(tiny_tags), "--out", str(out), *WORDS]
    assert main(words) == 0
    v = read_verdict(out)
    assert v.stage == "audit-annotations" and v.passed
    assert sorted(v.outputs) == ["findings.parquet", "tag_counts.parquet", "tag_status.csv"]
    assert v.inputs == {
        "annotations/0/train/coco.json": storage.sha256_file(tmp_path / "coco.json"),
        "annotations/1/validation/vg.json": storage.sha256_file(tmp_path / "vg.json"),
        "tags": storage.sha256_file(tiny_tags),
    }
    assert v.metrics["records"] == 24 and v.metrics["records_per_split"] == {"train": 12, "validation": 12}
    assert "audit-annotations: passed" in capsys.readouterr().err
    first = sha256_tree(out)
    assert main([*words[:-4], *["--set", "audit.workers=1"], *WORDS[2:]]) == 0 and sha256_tree(out) == first


def test_findings_name_the_place(audit_files, records):
    records[3]["union_label_id"] = [99]
    records[15]["caption"][1] = ""
    done = audit_files({"validation=vg.json": records[12:], "coco.json": records[:12]})
    faults = done.findings.filter(pl.col("check").is_in(["tags.out_of_range", "text.empty"]))
    assert faults.select("check", "sample", "key", "image_path").rows() == [
        ("text.empty", 15, "vg[3]", records[15]["image_path"]),
        ("tags.out_of_range", 3, "coco[3]", records[3]["image_path"]),
    ]


def test_the_same_key_in_two_files_is_found(audit_files, records):
    files = {"a.json": records[:5], "no.json": [], "b{}.json": records[5:], "c.json": records[7:8], "e.json": []}
    done = audit_files(files | {"test=d.json": [records[2], records[9]]})
    assert done.rows("set.duplicate_key") == [
        ("c[0]", "the same as b{}[2] of train"), ("d[0]", "the same as a[2] of train"),
        ("d[1]", "the same as b{}[4] of train"),
    ]  # fmt: skip
    assert done.verdict.metrics["records_per_split"] == {"test": 2, "train": 25}


def test_a_path_that_leaves_the_folder_is_found(audit_files, records):
    records[4]["image_path"] = "/data/coco/1.jpg"
    done = audit_files(records)
    assert done.failed() == {"set.absolute_path"}
    assert done.rows("set.absolute_path") == [("set[4]", "the path leaves the folder of images")]


@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_and_processes_change_nothing(audit_files, records, tmp_path, tiny_tags, monkeypatch, workers):
    for n in (5, 17):
        records[n]["caption"] = ["", "a view of the sea", "nul\x00"]
    records[9]["union_label_id"] = [-1, 7, 7]
    files = {"a.json": records * 5, "b.json": records * 3}
    settings = AuditSettings(**(LIMITS | {"workers": workers}))
    audit_files(files)
    monkeypatch.setattr(units, "PIECE_BYTES", 3000)
    given = [str(tmp_path / name) for name in files]
    assert len(units.piece_units([("train", tmp_path / "a.json")])) > 5
    (tmp_path / "again").mkdir()
    run_annotations(settings, tags=tiny_tags, out=tmp_path / "again", annotations=given)
    assert sha256_tree(tmp_path / "again") == sha256_tree(tmp_path / "audit")


def test_a_malformed_record_is_named_by_its_number_in_the_file(audit_files, records, monkeypatch):
    monkeypatch.setattr(units, "PIECE_BYTES", 1000)
    second = [*records[:20], records[0] | {"caption": "no list"}]
    with pytest.raises(UserError, match=r"b\.json: record 20 \(from 0\): Expected `array`, got `str`"):
        audit_files({"a.json": records, "b.json": second})


def test_records_from_a_manifest_and_from_annotations_are_the_same(records, tmp_path):
    records[2]["caption"], records[3]["parse_label_id"], records[4]["union_label_id"] = [], [[], [1]], []
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    [piece] = annotations.pieces(path)
    names = {"caption": "captions", "union_label_id": "union_tags", "parse_label_id": "parsed_tags"}
    frame = annotations.parse(piece).rename(names)
    one, two = of_manifest(frame), of_annotations(annotations.decode(piece))
    assert one.paths.equals(two.paths) and one.captions.equals(two.captions)
    for a, b in ((one.union, two.union), (one.parsed, two.parsed)):
        assert a.rows.tolist() == b.rows.tolist() and a.ids.tolist() == b.ids.tolist()
    assert one.parsed_lists_each.tolist() == two.parsed_lists_each.tolist()


def test_every_fault_on_every_record(audit_files, records):
    """All rows are there, in order, and each check counts its own."""
    many = []
    for n in range(3000):
        caption = "a cafÃ©\x07\ufffd <br> " + "word " * 80
        many.append({"image_path": f"/abs/{n // 2}.jpg", "caption": ["", caption], "union_label_id": [-1, 2, 2, 77],
                     "parse_label_id": [[3]]})  # fmt: skip
    done = audit_files(many)
    each = {c.id: c.count for c in done.verdict.checks}
    everywhere = [k.id for k in KINDS if k.id.startswith(("text.", "tags.")) and k.id in each]
    left_out = {"text.no_caption", "tags.no_union", "tags.dropped", "tags.missing", "tags.rare", "tags.duplicate_name"}
    assert {check: each[check] for check in everywhere if check not in left_out} == dict.fromkeys(
        [check for check in everywhere if check not in left_out], 3000
    )
    assert each["set.absolute_path"] == 3000 and each["set.duplicate_key"] == 1500
    order = {kind.id: n for n, kind in enumerate(KINDS)}
    places = done.findings.select("check", "sample", "detail").rows()
    assert [(order[c], s) for c, s, _ in places if s is not None] == sorted(
        (order[c], s) for c, s, _ in places if s is not None
    )
    assert dict(done.findings.group_by("check").len().iter_rows()) == {c: n for c, n in each.items() if n}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "what is to be audited: give --data DATASET, or --annotations FILE... --tags LIST"),
        (["--annotations", "a.json"], "--annotations needs the tag list that the ids point into: give --tags LIST"),
        (["--annotations", "a.json", "--tags", "t", "--data", "d"], "--data needs a packed dataset: leave it out"),
        (["--data", "d", "--tags", "t"], "--tags goes with --annotations: a packed dataset has its own"),
        (["--data", "d", "--shard-range", "0:1", "--parts", "p"], "--shard-range and --parts are two"),
        (["--data", "d", "--shard-range", "0:1", "--previous", "p"], "--previous is for the conclusion"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(tmp_path, capsys, words, says):
    assert main(["audit", "--out", str(tmp_path / "out"), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line and not (tmp_path / "out").exists()


def test_files_of_one_name_are_refused(files, tiny_tags, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "coco.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="two annotation files are named coco: their names are the sources, rename one"):
        run_annotations(
            AuditSettings(), tags=tiny_tags, out=tmp_path, annotations=[*files, str(tmp_path / "b" / "coco.json")]
        )


def test_it_is_no_audit_for_other_stages(files, tiny_data, tiny_tags, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", "--annotations", *files, "--tags", str(tiny_tags), "--out", str(out), *WORDS]) == 0
    inputs = ["--data", str(tiny_data), "--audit", str(out), "--train", str(tmp_path)]
    assert main(["evaluate", *inputs, "--out", str(tmp_path / "x")]) == 2
    assert "is the output of audit-annotations, not of audit: give the right directory" in capsys.readouterr().err


def test_from_s3(bucket, files, tiny_tags, tmp_path, monkeypatch):
    monkeypatch.setattr("ramflow.stage.CACHE", tmp_path / "cache")
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "coco.json").write_bytes((tmp_path / "coco.json").read_bytes())
    storage.publish(tmp_path / "up", f"s3://{bucket}/in", last="coco.json")
    there = f"s3://{bucket}/in/coco.json"
    words = ["audit", "--annotations", there, "--tags", str(tiny_tags), "--out", str(tmp_path / "out"), *WORDS]
    assert main(words) == 0
    assert read_verdict(tmp_path / "out").metrics["sources"]["coco"]["records"] == 12
