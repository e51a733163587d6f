"""The plan: where shards are cut, what stands for it, and that nothing depends on how the work is divided."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ramflow.cli import main
from ramflow.data import annotations
from ramflow.data.dataset import Dataset
from ramflow.data.pack import Source, make_plan_only, pack
from ramflow.data.plan import PlannedShard, read_plan
from ramflow.data.planning import cut_shards
from ramflow.data.records import json_pass, piece_path
from ramflow.errors import UserError
from ramflow.storage import sha256_tree

GIVEN = ("--annotations", "a", "--images", "i", "--tags", "t")


def cut_one_by_one(sizes, splits, shard_bytes):
    """The rule, record by record."""
    shards, taken = [], 0
    for split, first, end in splits:
        number = size = samples = 0
        for record in range(first, end):
            size, samples = size + max(sizes[record], 0), samples + (sizes[record] >= 0)
            if samples and (size >= shard_bytes or record == end - 1):
                shards.append(PlannedShard(f"{split}-{number:05d}.tar", split, taken, record + 1, samples))
                number, taken, size, samples = number + 1, record + 1, 0, 0
    if shards:
        shards[-1] = PlannedShard(*[*shards[-1].__reduce__()[1][:3], len(sizes), shards[-1].samples])
    return shards


@pytest.mark.parametrize("seed", range(50))
def test_shards_are_cut_where_their_images_reach_the_size(seed):
    r = random.Random(seed)
    sizes = [r.choice([-1, 0, r.randrange(1, 100), r.randrange(1, 100)]) for _ in range(r.randrange(1, 60))]
    sizes = sizes if seed % 5 else [-1] * len(sizes)
    ends = sorted([*(r.randrange(len(sizes) + 1) for _ in range(2)), len(sizes)])
    splits = [(s, a, b) for s, a, b in zip(("train", "validation", "test"), [0, *ends], ends, strict=False) if a < b]
    shard_bytes = r.randrange(1, 300)
    shards = cut_shards(np.array(sizes), splits, shard_bytes)
    assert all(s.samples for s in shards) and sum(s.samples for s in shards) == sum(size >= 0 for size in sizes)
    if shards:
        assert [s.first for s in shards] == [0, *[s.end for s in shards[:-1]]] and shards[-1].end == len(sizes)
    trimmed = [(s.name, s.split, s.samples, sum(max(x, 0) for x in sizes[s.first : s.end])) for s in shards]
    expected = cut_one_by_one(sizes, splits, shard_bytes)
    assert trimmed == [(s.name, s.split, s.samples, sum(max(x, 0) for x in sizes[s.first : s.end])) for s in expected]


@pytest.fixture
def mixed(tmp_path, images_dir, tiny_tags, monkeypatch):
    """Arguments for 400 records in small pieces: images of random sizes, some empty, some missing, over all splits."""
    monkeypatch.setattr(annotations, "PIECE_BYTES", 4096)
    r = random.Random(7)
    (tmp_path / "images").mkdir()
    files = []
    for split, count in (("train", 200), ("test", 100), ("validation", 60), ("train", 40)):
        records = []
        for n in range(count):
            name = f"{len(files)}_{n}.jpg"
            if r.random() < 0.85 and not (split == "validation" and n > 50):
                (tmp_path / "images" / name).write_bytes(r.randbytes(r.choice([0, r.randrange(1, 3000)])))
            texts = [f"caption {r.random()} é"] * r.randrange(3)
            records.append({"image_path": name, "caption": texts, "union_label_id": [n % 6], "parse_label_id": [[1]]})
        path = tmp_path / f"file_{len(files)}.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        files.append(f"{split}={path}")
    return files, tmp_path / "images", tiny_tags


def test_the_bytes_of_a_shard_are_those_of_a_plain_tar(mixed, tmp_path):
    """As tarfile writes it member by member, read anew from the annotations in the order of the splits."""
    pack(*mixed, tmp_path / "data", shard_bytes=20_000)
    files = sorted((f.split("=") for f in mixed[0]), key=lambda f: ("train", "validation", "test").index(f[0]))
    expected, open_ = {}, {}
    for split in ("train", "validation", "test"):
        records = [r for s, f in files if s == split for r in json.loads(Path(f).read_text(encoding="utf-8"))]
        for number, record in enumerate(records):
            image = mixed[1] / record["image_path"]
            if not image.exists():
                continue
            if split not in open_:
                name = f"{split}-{sum(n.startswith(split) for n in expected):05d}.tar"
                expected[name] = io.BytesIO()
                tar = tarfile.open(fileobj=expected[name], mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                open_ = {split: (tar, [0])}
            tar, size = open_[split]
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            for ending, data in (("jpg", image.read_bytes()), ("json", line)):
                info = tarfile.TarInfo(f"{split}_{number:09d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            size[0] += image.stat().st_size
            if size[0] >= 20_000:
                tar.close()
                del open_[split]
        if split in open_:
            open_.pop(split)[0].close()
    assert len(expected) > 10
    for name, tar in expected.items():
        assert (tmp_path / "data" / name).read_bytes() == tar.getvalue(), name
    assert sorted(expected) == sorted(p.name for p in (tmp_path / "data").glob("*.tar"))


def test_any_number_of_workers_gives_the_same_bytes(mixed, tmp_path):
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        pack(*mixed, tmp_path / name, shard_bytes=20_000, workers=workers)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "again") == sha256_tree(tmp_path / "two")


def test_no_shard_is_without_samples_and_every_record_is_somewhere(mixed, tmp_path):
    verdict = pack(*mixed, tmp_path / "data", shard_bytes=1)
    data = Dataset(tmp_path / "data")
    assert all(s.samples for s in data.shards) and verdict.metrics["records"] == 400
    assert verdict.metrics["samples"] == len(data) == 400 - data.missing.height
    assert verdict.metrics["shards"] == len(data.shards)
    assert verdict.metrics["bytes"] == sum(p.stat().st_size for p in (tmp_path / "data").glob("*.tar"))
    splits = data.missing["split"].to_list()
    assert splits == sorted(splits, key=["train", "validation", "test"].index) and "validation" in splits
    assert set(data.missing["source"]) == {"file_0", "file_1", "file_2", "file_3"}


def test_a_set_without_any_image_has_no_shard(records, tmp_path, tiny_tags):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    verdict = pack([str(tmp_path / "a.json")], tmp_path / "images", tiny_tags, tmp_path / "data")
    data = Dataset(tmp_path / "data")
    assert not verdict.passed and data.shards == [] and len(data) == 0
    assert data.missing["image_path"].to_list() == [r["image_path"] for r in records]


def test_the_json_pass_keeps_every_record(mixed, tmp_path):
    pieces = json_pass(mixed[0], tmp_path / "records", 1)
    assert len(pieces) > 8 and [p.split for p in pieces] == sorted(
        (p.split for p in pieces), key=["train", "validation", "test"].index
    )
    frames = pl.concat(pl.read_parquet(piece_path(tmp_path / "records", n)) for n in range(len(pieces)))
    expected = []
    for file in (0, 3, 2, 1):
        expected += json.loads((tmp_path / f"file_{file}.json").read_text(encoding="utf-8"))
    assert frames.to_dicts() == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_malformed_record_is_named_by_its_place_in_the_file(mixed, tmp_path, workers):
    path = tmp_path / "file_1.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    records[77]["caption"] = "not a list"
    path.write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(UserError, match=r"file_1\.json: record 77 \(from 0\): Expected `array`, got `str`"):
        json_pass(mixed[0], tmp_path / "records", workers)


def test_the_digest_of_a_plan_stands_for_what_it_is_made_from(mixed, tmp_path):
    def digest(name, **change):
        usual = {"annotations": mixed[0], "images": [mixed[1]], "tags": mixed[2]}
        make_plan_only(Source(**usual | change, plan=tmp_path / name))
        return read_plan(tmp_path / name).digest

    first = digest("1")
    (tmp_path / "elsewhere").symlink_to(mixed[1])
    assert digest("2", images=[tmp_path / "elsewhere"], workers=2) == first
    different = {first, digest("3", shard_bytes=1), digest("4", annotations=mixed[0][::-1])}
    image = next(mixed[1].iterdir())
    image.write_bytes(image.read_bytes() + b"x")
    different.add(digest("5"))
    image.unlink()
    different.add(digest("6"))
    assert len(different) == 5


def test_the_plan_alone_prints_the_number_of_shards(mixed, tmp_path, capsys):
    files, images, tags = mixed
    command = ["pack", "--annotations", *files, "--images", str(images), "--tags", str(tags), "--shard-mb", "0.02"]
    assert main([*command, "--plan", str(tmp_path / "plan"), "--workers", "1"]) == 0
    shards = int(capsys.readouterr().out)
    assert main([*command, "--plan", str(tmp_path / "plan"), "--out", str(tmp_path / "data"), "--workers", "1"]) == 0
    assert len(Dataset(tmp_path / "data").shards) == shards > 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "o"], "pack needs --annotations, --images, --tags too"),
        ([*GIVEN], "pack needs --out too"),
        ([*GIVEN, "--plan", "p", "--shard-range", "0:1"], "pack needs --out too"),
        ([*GIVEN, "--out", "o", "--workers", "0"], "--workers 0"),
        ([*GIVEN, "--out", "o", "--max-missing", "2"], "--max-missing 2.0"),
        ([*GIVEN, "--out", "o", "--shard-range", "3"], "--shard-range 3: FIRST:END is expected"),
        (["--parts", "p"], "pack needs --out too"),
        (["--parts", "p", "--out", "o", "--tags", "t"], "leave out --tags"),
        (["--parts", "p", "--out", "o"], "p is not a part, it has no part.json"),
    ],
)
def test_words_that_do_not_belong_together_are_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line and not list(tmp_path.iterdir())
