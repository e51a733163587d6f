"""Packing in parts: the parts together are what one run makes, and wrong parts are refused."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ramflow.cli import main
from ramflow.data import parts as parts_module
from ramflow.data.pack import Source, make_plan_only, pack, pack_part
from ramflow.data.parts import collect
from ramflow.errors import UserError
from ramflow.storage import sha256_tree
from ramflow.verdict import read_verdict


@pytest.fixture
def source(records, images_dir, tiny_tags, tmp_path):
    """The 24 records over three splits, three of them without an image."""
    for n in (0, 5, 23):
        records[n]["image_path"] = f"gone/{n}.jpg"
    files = []
    for split, rows in (("train", records[:12]), ("validation", records[12:18]), ("test", records[18:])):
        (tmp_path / f"{split}_ram.json").write_text(json.dumps(rows), encoding="utf-8")
        files.append(f"{split}={tmp_path / f'{split}_ram.json'}")
    return Source(files, [images_dir], tiny_tags, shard_bytes=4096, plan=tmp_path / "plan")


@pytest.fixture
def total(source):
    return make_plan_only(source)


@pytest.fixture
def parts(source, total, tmp_path):
    """Three parts that are all shards."""
    folders = []
    for first, end in ((0, 1), (1, total - 1), (total - 1, total)):
        folders.append(tmp_path / f"part-{first}")
        pack_part(source, range(first, end), folders[-1])
    return folders


@pytest.fixture
def whole(source, tmp_path):
    """What one run makes, which plans for itself."""
    pack(source.annotations, source.images, source.tags, tmp_path / "whole", shard_bytes=4096)
    return sha256_tree(tmp_path / "whole")


@pytest.mark.parametrize("linked", [True, False])
def test_parts_together_are_what_one_run_makes(parts, whole, tmp_path, monkeypatch, linked):
    def no_link(*_):
        raise OSError

    if not linked:
        monkeypatch.setattr(os, "link", no_link)
    before = [sha256_tree(part) for part in parts]
    result = collect(parts[::-1], tmp_path / "data")
    assert sha256_tree(tmp_path / "data") == whole
    assert result == read_verdict(tmp_path / "whole")
    assert before == [sha256_tree(part) for part in parts]


def test_each_part_may_plan_for_itself(source, total, whole, tmp_path):
    command = ["pack", "--annotations", *source.annotations, "--images", str(source.images[0])]
    command += ["--tags", str(source.tags), "--shard-mb", str(4096 / 2**20), "--workers", "1"]
    for name, rows in (("a", f"0:{total // 2}"), ("b", f"{total // 2}:{total}")):
        assert main([*command, "--shard-range", rows, "--out", str(tmp_path / name)]) == 0
    assert main(["pack", "--parts", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "data")]) == 0
    assert sha256_tree(tmp_path / "data") == whole


def test_a_part_that_was_stopped_goes_on(source, total, tmp_path, monkeypatch):
    pack_part(source, range(0, total), tmp_path / "expected")
    real, calls = parts_module.write_part, []
    monkeypatch.setattr("ramflow.data.pack.write_part", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack_part(source, range(0, total), tmp_path / "part")
    monkeypatch.setattr("ramflow.data.pack.write_part", real)
    monkeypatch.setattr("ramflow.data.pack.pack_shard", calls.append)
    pack_part(source, range(0, total), tmp_path / "part")
    assert not calls and sha256_tree(tmp_path / "part") == sha256_tree(tmp_path / "expected")


def test_a_gap_is_named(parts, total, tmp_path):
    with pytest.raises(UserError, match=rf"the parts leave out shards 1:{total - 1}: pack them"):
        collect([parts[0], parts[2]], tmp_path / "data")
    with pytest.raises(UserError, match="the parts leave out shards 0:1: pack them"):
        collect(parts[1:], tmp_path / "data")
    with pytest.raises(UserError, match=rf"the parts leave out shards {total - 1}:{total}: pack them"):
        collect(parts[:2], tmp_path / "data")
    assert not (tmp_path / "data").exists() and not (tmp_path / "data.partial").exists()


def test_an_overlap_is_named(parts, source, tmp_path):
    pack_part(source, range(0, 2), tmp_path / "more")
    with pytest.raises(UserError, match=r"shards 1:2 are in two parts, .* leave one out"):
        collect([tmp_path / "more", *parts[1:]], tmp_path / "data")
    with pytest.raises(UserError, match="shards 0:1 are in two parts"):
        collect([*parts, parts[0]], tmp_path / "data")


@pytest.mark.parametrize("other", ["shard size", "images", "annotations"])
def test_a_part_of_another_plan_is_refused(parts, source, total, copy_of, images_dir, tmp_path, other):
    change = {"plan": None}
    if other == "shard size":
        change["shard_bytes"] = 4097
    elif other == "images":
        change["images"] = [copy_of(images_dir)]
        image = change["images"][0] / "shapes" / "circle_red_1.jpg"
        image.write_bytes(image.read_bytes() + b"x")
    else:
        change["annotations"] = [f.replace("test=", "validation=") for f in source.annotations]
    pack_part(Source(**{**source.__dict__, **change}), range(0, 1), tmp_path / "other")
    with pytest.raises(UserError, match="are parts of different plans"):
        collect([tmp_path / "other", *parts[1:]], tmp_path / "data")


@pytest.mark.parametrize(
    ("damage", "says"),
    [("shard gone", "is gone or cut off"), ("shard short", "is gone or cut off"), ("rows", "not what was packed"),
     ("part.json", "is not a part of this version"), ("shard bytes", "its sha256 differs")],
)  # fmt: skip
def test_a_damaged_part_is_named(parts, tmp_path, monkeypatch, damage, says):
    shard = next(parts[1].glob("*.tar"))
    if damage == "shard gone":
        shard.unlink()
    elif damage == "shard short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "rows":
        next((parts[1] / "pieces").glob("*.rows.parquet")).write_bytes(b"PAR1")
    elif damage == "part.json":
        (parts[1] / "part.json").write_text("{}")
    else:  # seen where shards are copied
        shard.write_bytes(shard.read_bytes()[:-1] + b"x")
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(UserError, match=says) as error:
        collect(parts, tmp_path / "data")
    assert str(parts[1]) in str(error.value) and not (tmp_path / "data").exists()


def test_a_range_that_the_plan_does_not_have_is_one_line(source, total, tmp_path):
    with pytest.raises(UserError, match=rf"--shard-range 0:{total + 1}: the shards are 0:{total}"):
        pack_part(source, range(total + 1), tmp_path / "part")
    assert not (tmp_path / "part.partial").exists()


def test_a_part_is_no_dataset(parts, tmp_path, capsys):
    assert main(["audit", "--data", str(parts[0]), "--out", str(tmp_path / "audit")]) == 2
    assert "is not a packed dataset" in capsys.readouterr().err


def test_too_many_missing_are_a_no_of_the_whole_set(parts, tmp_path):
    assert collect(parts, tmp_path / "data", max_missing=3 / 24).passed
    result = collect(parts, tmp_path / "data", max_missing=0.1)
    assert [c.id for c in result.failures()] == ["pack.missing_image"] and result.failures()[0].count == 3
    shutil.rmtree(tmp_path / "data")
