"""An audit in parts: merged, it is that of one machine to the byte; what does not fit is refused in one line."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from ramflow import storage
from ramflow.audit import part
from ramflow.audit.checks import KINDS
from ramflow.cli import main
from ramflow.data.dataset import Dataset
from ramflow.storage import sha256_tree
from ramflow.verdict import read_verdict
from tests.audit.conftest import photo
from tests.conftest import all_records

SETTINGS = [
    word
    for value in ("workers=1", "rare_below=2", "max_missing_tags_share=0.2", "max_unusable_share=0.5",
                  "placeholder_records=4", "shared_caption_records=3", "expected={train: {records: 99}}")
    for word in ("--set", f"audit.{value}")
]  # fmt: skip


def everywhere(folder):
    """24 records with faults of every family, whose twins are far apart; writes their images into ``folder``."""
    records = all_records()
    for seed, record in enumerate(records):
        (folder / record["image_path"]).parent.mkdir(parents=True, exist_ok=True)
        photo(seed).save(folder / record["image_path"], quality=90)

    def copy(of, to):
        shutil.copyfile(folder / records[of]["image_path"], folder / records[to]["image_path"])

    for to in (4, 10, 11):  # one picture on four records: a placeholder
        copy(0, to)
    copy(1, 9)  # equal within train
    copy(2, 14)  # equal in train and validation
    photo(3).resize((50, 50)).save(folder / records[8]["image_path"], quality=60)
    photo(5).resize((50, 50)).save(folder / records[20]["image_path"], quality=60)
    (folder / records[6]["image_path"]).write_bytes(b"<html>")
    (folder / records[15]["image_path"]).write_bytes(b"")
    for n in (7, 12, 23):
        records[n]["caption"][0] = "a view of the sea"
    records[7]["union_label_id"] = [0, 3, 99, -1]
    records[13]["caption"], records[21]["union_label_id"] = [], []
    records[22]["caption"][1] = "a cafÃ©\ufffd"
    records[5]["union_label_id"] += [5, 5]
    records += [records[16] | {"caption": ["gone", "gone"], "image_path": path} for path in ("/abs.jpg", "gone.jpg")]
    records.append(records[17])  # the same key again
    return records


@pytest.fixture(scope="module")
def faulty(_packer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    records = everywhere(folder)
    return _packer(records[:12], records[12:18], records[18:], images=folder, shard_bytes=1 << 12)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "open").mkdir()
    photo(5).resize((80, 80)).save(folder / "open" / "0.jpg", quality=50)
    return folder


@pytest.fixture(scope="module")
def compared(benchmarks) -> list[str]:
    return ["--benchmarks", str(benchmarks)]


@pytest.fixture(scope="module")
def whole(faulty, compared, tmp_path_factory) -> Path:
    """The audit of one machine."""
    out = tmp_path_factory.mktemp("whole") / "audit"
    assert main(["audit", "--data", str(faulty), "--out", str(out), *SETTINGS, *compared]) == 0
    return out


def make_part(data, out, shards, *more):
    return main(["audit", "--data", str(data), "--out", str(out), "--shard-range", shards, *SETTINGS, *more])


@pytest.fixture(scope="module")
def parts(faulty, tmp_path_factory):
    """``parts("0:2")``: the part of these shards, made once."""
    folder = tmp_path_factory.mktemp("parts")

    def get(shards):
        if not (folder / shards).exists():
            assert make_part(faulty, folder / shards, shards) == 0
        return str(folder / shards)

    return get


def merge(data, out, parts, *more):
    return main(["audit", "--data", str(data), "--out", str(out), *SETTINGS, "--parts", *map(str, parts), *more])


def test_the_faults_are_of_every_family_that_parts_could_miss(whole, faulty):
    failed = {c.id for c in read_verdict(whole).checks if c.count}
    assert {
        "text.shared_caption", "text.mojibake", "text.not_utf8", "text.no_caption", "tags.out_of_range",
        "tags.negative", "tags.duplicate_id", "tags.no_union", "tags.missing", "set.duplicate_key",
        "set.duplicate_image", "set.near_duplicate", "set.placeholder", "set.leakage", "set.near_leakage",
        "set.benchmark_leakage", "set.missing_image", "set.absolute_path", "set.unexpected_count", "images.html",
        "images.empty",
    } <= failed  # fmt: skip
    assert len(Dataset(faulty).shards) > 8


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (4,), (1, 2, 5, 6), "each"])
def test_merged_it_is_the_audit_of_one_machine_to_the_byte(whole, faulty, parts, compared, tmp_path, cuts):
    count = len(Dataset(faulty).shards)
    edges = list(range(count + 1)) if cuts == "each" else [0, *cuts, count]
    made = [parts(f"{first}:{end}") for first, end in pairwise(edges)]
    assert merge(faulty, tmp_path / "audit", reversed(made), *compared) == 0
    assert sha256_tree(tmp_path / "audit") == sha256_tree(whole)


def test_chunks_of_any_size_give_the_same_bytes(whole, faulty, compared, tmp_path, monkeypatch):
    monkeypatch.setattr(part, "CHUNK_ROWS", 2)
    monkeypatch.setattr("ramflow.audit.units.SAMPLES", 1)
    out = tmp_path / "audit"
    assert main(["audit", "--data", str(faulty), "--out", str(out), *SETTINGS, *compared]) == 0
    assert sha256_tree(out) == sha256_tree(whole)


def test_a_part_concludes_nothing(parts):
    v = read_verdict(Path(parts("0:1")))
    assert v.stage == "audit-part" and v.checks == [] and v.passed
    assert (v.metrics["first"], v.metrics["end"]) == (0, 1)
    assert "findings.parquet" not in v.outputs


@pytest.fixture
def refused(capsys):
    """``refused(code, text)``: the last command failed with this one line."""

    def look(code, text):
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len([line for line in lines if line.startswith("ramflow: ")]) == 1
        assert text in lines[-1], lines[-1]

    return look


def test_gaps_and_overlaps_are_refused(faulty, parts, tmp_path, refused):
    count = len(Dataset(faulty).shards)
    rest = parts(f"4:{count}")
    gap = merge(faulty, tmp_path / "out", [parts("0:1"), parts("2:3"), rest])
    refused(gap, "the parts leave out shards 1:2: audit them with --shard-range 1:2")
    refused(merge(faulty, tmp_path / "out", [rest]), "the parts leave out shards 0:4")
    refused(merge(faulty, tmp_path / "out", [parts("0:1"), parts("1:2")]), f"the parts leave out shards 2:{count}")
    twice = merge(faulty, tmp_path / "out", [parts("0:1"), parts("0:4"), rest])
    refused(twice, "shards 0:1 are in two parts, ")
    assert not (tmp_path / "out").exists()


def test_parts_of_other_data_or_settings_are_refused(faulty, tiny_data, parts, tmp_path, refused):
    count = len(Dataset(faulty).shards)
    halves = [parts("0:4"), parts(f"4:{count}")]
    refused(merge(tiny_data, tmp_path / "out", halves), "was made from data sha256:")
    other = merge(faulty, tmp_path / "out", halves, "--set", "audit.near_radius=2")
    refused(other, "was made with audit.near_radius 4, not 2: audit that range again")
    assert merge(faulty, tmp_path / "out", halves, "--set", "audit.workers=3") == 0


def test_parts_of_another_version_are_refused(faulty, parts, tmp_path, refused, monkeypatch):
    part = parts(f"0:{len(Dataset(faulty).shards)}")
    monkeypatch.setattr(pl, "__version__", "1.0.0")
    refused(merge(faulty, tmp_path / "out", [part]), "was made with version of polars 2")


def test_a_damaged_part_is_refused(faulty, parts, tmp_path, refused):
    count = len(Dataset(faulty).shards)
    copy = tmp_path / "copy"
    shutil.copytree(parts(f"0:{count}"), copy)
    (copy / "samples-000000.parquet").write_bytes(b"PAR1")
    refused(merge(faulty, tmp_path / "out", [copy]), "samples-000000.parquet is not what audit-part wrote")


def test_what_is_no_part_is_refused(faulty, whole, tmp_path, refused):
    refused(merge(faulty, tmp_path / "out", [whole]), "is the output of audit, not a part of an audit: make parts with")
    refused(merge(faulty, tmp_path / "out", [tmp_path]), "is not the output of a stage: it has no verdict.json")


def test_a_part_is_no_audit_for_other_stages(tiny_data, tmp_path, refused):
    assert make_part(tiny_data, tmp_path / "part", "0:1") == 0
    inputs = ["--data", tiny_data, "--audit", tmp_path / "part", "--train", tmp_path]
    code = main(["evaluate", *map(str, inputs), "--out", str(tmp_path / "out")])
    refused(code, "is the output of audit-part, not of audit: put all parts together with `ramflow audit --parts`")


@pytest.mark.parametrize("text", ["2", "2:1", "0:99", "a:b", "1:1", "0:2:3"])
def test_a_range_that_is_none_is_refused(tiny_data, tmp_path, refused, text):
    refused(make_part(tiny_data, tmp_path / "out", text), f"--shard-range {text}: ")


def test_ranges_cover_all_shards(tiny_data, tmp_path, capsys):
    count = len(Dataset(tiny_data).shards)
    assert main(["shards", "--data", str(tiny_data), "--per-task", "3"]) == 0
    ranges = json.loads(capsys.readouterr().out)
    edges = [tuple(map(int, r.split(":"))) for r in ranges]
    assert [shard for first, end in edges for shard in range(first, end)] == list(range(count))
    assert main(["shards", "--data", str(tiny_data), "--out", str(tmp_path / "x" / "ranges.json")]) == 0
    assert json.loads((tmp_path / "x" / "ranges.json").read_text()) == [f"0:{count}"]
    assert capsys.readouterr().out == ""


def test_parts_in_s3(bucket, faulty, whole, parts, compared, tmp_path, monkeypatch):
    monkeypatch.setattr("ramflow.stage.CACHE", tmp_path / "cache")
    count = len(Dataset(faulty).shards)
    for name, shards in (("a", "0:4"), ("b", f"4:{count}")):
        storage.publish(Path(parts(shards)), f"s3://{bucket}/{name}", last="verdict.json")
    assert merge(faulty, tmp_path / "out", [f"s3://{bucket}/a", f"s3://{bucket}/b"], *compared) == 0
    assert sha256_tree(tmp_path / "out") == sha256_tree(whole)


def test_a_set_in_s3_as_on_a_disk(bucket, faulty, whole, compared, tmp_path, monkeypatch):
    """Shards come one by one through the cache."""
    monkeypatch.setattr("ramflow.stage.CACHE", tmp_path / "cache")
    monkeypatch.setenv("RAMFLOW_CACHE", str(tmp_path / "cache"))
    storage.publish(faulty, f"s3://{bucket}/data", last="verdict.json")
    assert main(["audit", "--data", f"s3://{bucket}/data", "--out", str(tmp_path / "a"), *SETTINGS, *compared]) == 0
    assert sha256_tree(tmp_path / "a") == sha256_tree(whole)


def test_every_check_of_a_sample_has_its_place_in_the_order():
    assert len(KINDS) < 255  # one byte a sample in the quarantine
