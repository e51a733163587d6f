"""pack: what is in the shards and the manifest, and what happens with records and files that are wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import polars as pl
import pytest
from PIL import Image

from ramflow.cli import main
from ramflow.data.dataset import Dataset
from ramflow.data.pack import pack
from ramflow.errors import UserError
from ramflow.storage import sha256_file, sha256_tree
from ramflow.verdict import read_verdict


@pytest.fixture
def write_json(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_shards_are_plain_tar_files_in_webdataset_layout(tiny_data, images_dir, records):
    manifest = Dataset(tiny_data).manifest
    by_key = {}
    for shard in sorted(tiny_data.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert names == sorted(names) and len(names) == 2 * len(set(n.split(".")[0] for n in names))
            by_key |= {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    for row, record in zip(manifest.iter_rows(named=True), records, strict=True):
        image = (images_dir / record["image_path"]).read_bytes()
        assert by_key.pop(f"{row['key']}.jpg") == image
        assert json.loads(by_key.pop(f"{row['key']}.json")) == record
        assert row["sha256"] == hashlib.sha256(image).hexdigest()
        assert (tiny_data / row["shard"]).read_bytes()[row["offset"] :][: row["length"]] == image
    assert not by_key


def test_keys_number_the_records_of_a_split(tiny_data):
    keys = Dataset(tiny_data).manifest["key"].to_list()
    assert keys[0] == "train_000000000" and keys[11] == "train_000000011" and keys[12] == "validation_000000000"


def test_the_description_lists_the_digest_of_every_file(tiny_data):
    files = json.loads((tiny_data / "dataset.json").read_text())["files"]
    others = {"dataset.json", "verdict.json"}
    assert files == {k: v for k, v in sha256_tree(tiny_data).items() if k not in others}
    assert read_verdict(tiny_data).outputs == {"dataset.json": sha256_file(tiny_data / "dataset.json")}


def test_the_same_input_gives_the_same_bytes_anywhere(pack_records, tiny_data, records, copy_of, images_dir):
    again = pack_records(records[:12], records[12:18], records[18:], images=copy_of(images_dir))
    assert again != tiny_data and sha256_tree(again) == sha256_tree(tiny_data)
    assert str(images_dir).encode() not in b"".join(p.read_bytes() for p in again.iterdir())


def test_packing_into_a_dataset_replaces_it_whole(write_json, records, images_dir, tiny_tags, tmp_path):
    out = tmp_path / "data"
    pack([write_json("a.json", records)], images_dir, tiny_tags, out, shard_bytes=2000)
    pack([write_json("a.json", records[:2])], images_dir, tiny_tags, out)
    assert sorted(p.name for p in out.glob("*.tar")) == ["train-00000.tar"]
    assert Dataset(out).manifest.height == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "data"]


def test_files_of_the_same_name_are_all_recorded(write_json, records, images_dir, tiny_tags, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "sbu").mkdir()
    files = [write_json("coco/train.json", records[:3]), write_json("sbu/train.json", records[3:5])]
    verdict = pack(files, images_dir, tiny_tags, tmp_path / "data")
    assert verdict.inputs == {
        "annotations/0/train/train.json": sha256_file(tmp_path / "coco/train.json"),
        "annotations/1/train/train.json": sha256_file(tmp_path / "sbu/train.json"),
        "tags": sha256_file(tiny_tags),
    }
    assert Dataset(tmp_path / "data").manifest.height == 5


@pytest.mark.parametrize(
    ("image_path", "reason"),
    [
        ("shapes/gone.jpg", "no such file"),
        ("shapes", "is a directory"),
        ("", "is a directory"),
        ("shapes/circle_red_0.jpg/x.jpg", "not a directory"),
        ("shapes/" + "x" * 300 + ".jpg", "file name too long"),
        ("/etc/hostname", "absolute"),
        ("../images/shapes/circle_red_0.jpg", "leaves the folder"),
        ("shapes/circle\0.jpg", "NUL"),
    ],
)
def test_a_record_without_image_is_a_row_of_the_missing(pack_records, records, image_path, reason):
    records[1]["image_path"] = image_path
    data = Dataset(pack_records(records[:3]))
    assert data.manifest["key"].to_list() == ["train_000000000", "train_000000002"]
    [(split, source, path, why)] = data.missing.iter_rows()
    assert (split, source, path) == ("train", "train", image_path) and reason in why


def test_missing_images_above_half_are_a_no(pack_records, records, images_dir, tmp_path):
    for record in records[:3]:
        record["image_path"] = "gone/" + record["image_path"]
    half, more = pack_records(records[:6]), pack_records(records[:5])
    assert read_verdict(half).passed and not read_verdict(more).passed
    [failure] = read_verdict(more).failures()
    assert failure.id == "pack.missing_image" and (failure.count, failure.total, failure.limit) == (3, 5, 2)
    assert "missing.parquet" in failure.message and failure.examples[0] == "gone/shapes/circle_red_0.jpg"
    assert main(["audit", "--data", str(more), "--out", str(tmp_path / "audit")]) == 3


@pytest.mark.parametrize(
    ("name", "member"),
    [("A.JPG", "jpg"), ("b.json", "bin"), ("c", "bin"), ("d.jpg?w=20&h=10", "bin"), ("e.x y", "bin"), ("ü.jpg", "jpg")],
)
def test_odd_file_names_do_not_break_a_shard(pack_records, records, copy_of, images_dir, name, member):
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).rename(images / name)
    records[0]["image_path"] = name
    packed = pack_records(records[:2], images=images)
    with tarfile.open(packed / "train-00000.tar") as tar:
        assert tar.getnames()[:2] == [f"train_000000000.{member}", "train_000000000.json"]
    assert Dataset(packed).manifest["image_path"][0] == name
    assert Dataset(packed).info["sources"] == {"train": 2}


def test_an_empty_file_and_one_that_is_no_image_are_packed_as_they_are(pack_records, records, copy_of, images_dir):
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).write_bytes(b"")
    (images / records[1]["image_path"]).write_bytes(b"<html>")
    data = Dataset(pack_records(records[:3], images=images))
    rows = data.manifest.select("shard", "offset", "length").rows()
    assert [data.read(*row) for row in rows[:2]] == [b"", b"<html>"]
    assert Image.open(io.BytesIO(data.read(*rows[2]))).size == (48, 48)


def test_a_split_whose_images_are_all_missing_has_no_rows(pack_records, records):
    records[5]["image_path"] = "gone.jpg"
    data = Dataset(pack_records(records[:5], records[5:6]))
    assert data.info["splits"] == {"train": 5} and data.missing["split"].to_list() == ["validation"]


def test_tag_ids_outside_the_list_are_kept_for_the_audit(pack_records, records):
    records[0]["union_label_id"] = [-3, 2**31 - 1]
    manifest = Dataset(pack_records(records[:2])).manifest
    assert manifest["union_tags"].to_list()[0] == [-3, 2**31 - 1] and manifest.schema["union_tags"] == pl.List(pl.Int32)


@pytest.mark.parametrize(
    ("split", "content", "says"),
    [
        ("train", '[{"image_path": "a.jpg"', "cut off"),
        ("test", '[{"image_path": "a.jpg"', "cut off"),
        ("validation", '{"image_path": "a.jpg"}', "not a JSON list"),
        ("test", '[{"caption": ["no path"]}]', "missing required field `image_path`"),
        ("train", '[{"image_path": "a.jpg", "union_label_id": ["cat"]}]', "Expected `int`, got `str`"),
    ],
)
def test_bad_annotations_are_one_line_and_leave_nothing(
    write_json, records, images_dir, tiny_tags, tmp_path, capsys, split, content, says
):
    good, bad = write_json("good.json", records), write_json("bad.json", content)
    command = ["pack", "--images", str(images_dir), "--tags", str(tiny_tags), "--out", str(tmp_path / "data")]
    assert main([*command, "--annotations", good, f"{split}={bad}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ramflow: {bad}") and says in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.json", "good.json"]


def test_no_record_at_all_is_refused(write_json, images_dir, tiny_tags, tmp_path):
    with pytest.raises(UserError, match=r"no record in .*a\.json"):
        pack([write_json("a.json", [])], images_dir, tiny_tags, tmp_path / "data")


@pytest.mark.parametrize("wrong", ["annotations", "images", "tags", "shard-mb", "out"])
def test_a_wrong_path_is_one_line_that_names_it(write_json, records, images_dir, tiny_tags, tmp_path, capsys, wrong):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("dear", encoding="utf-8")
    bad = {"shard-mb": "-1", "out": str(tmp_path / "other")}.get(wrong, str(tmp_path / "gone"))
    given = {
        "annotations": write_json("a.json", records),
        "images": str(images_dir),
        "tags": str(tiny_tags),
        "out": str(tmp_path / "data"),
    } | {wrong: bad}
    assert main(["pack", *(word for name, value in given.items() for word in (f"--{name}", value))]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert bad in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "other"]
    assert (tmp_path / "other" / "thesis.txt").read_text() == "dear"
