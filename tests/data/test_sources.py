"""Images from folders, tars and s3://: the same set from each, several roots at once, and faulty ones named."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile

import boto3
import botocore.client
import pytest

from ramflow.cli import main
from ramflow.data import sources
from ramflow.data.dataset import Dataset
from ramflow.data.pack import Source, make_plan_only, pack
from ramflow.data.places import SEVERAL_SIZES
from ramflow.errors import UserError
from ramflow.storage import sha256_tree


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tars(folder, images, count=3, prefix="", tar_format=tarfile.PAX_FORMAT):
    """The files of ``images`` spread over tars in ``folder``."""
    folder.mkdir(parents=True)
    files = sorted(p for p in images.rglob("*") if p.is_file())
    for n in range(count):
        with tarfile.open(folder / f"{n:05d}.tar", "w", format=tar_format) as tar:
            for path in files[n::count]:
                add(tar, prefix + path.relative_to(images).as_posix(), path.read_bytes())
    return folder


def upload(folder, bucket, prefix):
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return f"s3://{bucket}/{prefix}"


@pytest.fixture
def images(copy_of, images_dir, records):
    """A copy of the images with one that is empty, one of 300 kB, and one with a long name in German."""
    images = copy_of(images_dir)
    (images / records[1]["image_path"]).write_bytes(b"")
    (images / records[2]["image_path"]).write_bytes(random.Random(0).randbytes(300_000))
    long = "shapes/" + "ein roter Kreis, größer " * 6 + ".jpg"
    (images / records[3]["image_path"]).rename(images / long)
    records[3]["image_path"] = long
    return images


@pytest.fixture
def pack_from(records, images, tiny_tags, tmp_path):
    """``pack_from(root, ...)``: the 24 records packed from these roots, one of which has no image of record 5."""
    records[5]["image_path"] = "shapes/gone.jpg"
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")

    def run(*roots, out="data", **options):
        pack([str(tmp_path / "train.json")], roots, tiny_tags, tmp_path / out, shard_bytes=4096, **options)
        return Dataset(tmp_path / out)

    return run


@pytest.fixture
def expected(pack_from, images):
    """The set as packed from the folder."""
    return sha256_tree(pack_from(images, out="expected").directory)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_folder_of_tars(pack_from, images, expected, tmp_path, tar_format):
    tars = write_tars(tmp_path / "tars", images, tar_format=tar_format)
    assert sha256_tree(pack_from(tars).directory) == expected


def test_tars_one_by_one_and_members_that_begin_with_a_dot(pack_from, images, expected, tmp_path):
    tars = write_tars(tmp_path / "tars", images, prefix="./")
    assert sha256_tree(pack_from(*sorted(tars.iterdir()), workers=2).directory) == expected


def test_many_tars_are_open_in_turn(pack_from, images, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_OPEN", 2)
    tars = write_tars(tmp_path / "tars", images, count=5)
    assert sha256_tree(pack_from(tars).directory) == expected


def test_loose_files_beside_tars(pack_from, images, expected, tmp_path):
    (tmp_path / "some").mkdir()
    for path in list((images / "shapes").iterdir())[::3]:
        (tmp_path / "some" / "shapes").mkdir(exist_ok=True)
        path.rename(tmp_path / "some" / "shapes" / path.name)
    tars = write_tars(tmp_path / "tars", images)
    shutil.copytree(tmp_path / "some", tars, dirs_exist_ok=True)
    assert sha256_tree(pack_from(tars).directory) == expected
    assert sha256_tree(pack_from(images, tmp_path / "some", out="two").directory) == expected


@pytest.fixture
def operations(monkeypatch):
    """Names of the S3 operations of this process, as they are made."""
    made, real = [], botocore.client.BaseClient._make_api_call

    def record(client, name, arguments):
        made.append(name)
        return real(client, name, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    return made


def test_an_s3_prefix(pack_from, images, expected, bucket, operations, tmp_path):
    address = upload(images, bucket, "some/images")
    boto3.client("s3").put_object(Bucket=bucket, Key="some/images-of-others/x.jpg", Body=b"x")
    operations.clear()
    assert sha256_tree(pack_from(address).directory) == expected
    assert sorted(operations) == ["GetObject"] * 23 + ["ListObjectsV2"]


def test_tars_on_s3(pack_from, images, expected, bucket, operations, tmp_path, monkeypatch):
    monkeypatch.setattr("ramflow.data.index_tasks.REMOTE_BLOCK", 5000)
    address = upload(write_tars(tmp_path / "tars", images), bucket, "tars")
    operations.clear()
    assert sha256_tree(pack_from(address + "/").directory) == expected
    assert set(operations) == {"GetObject", "ListObjectsV2"} and operations.count("ListObjectsV2") == 1
    roots = [f"{address}/{n:05d}.tar" for n in range(3)]
    assert sha256_tree(pack_from(*roots, out="one-by-one").directory) == expected


def test_a_folder_and_s3_together(pack_from, images, expected, bucket, tmp_path):
    (tmp_path / "some" / "shapes").mkdir(parents=True)
    for path in list((images / "shapes").iterdir())[::2]:
        path.rename(tmp_path / "some" / "shapes" / path.name)
    assert sha256_tree(pack_from(tmp_path / "some", upload(images, bucket, "images")).directory) == expected


def test_the_same_file_in_two_places_is_taken_once(pack_from, images, expected, tmp_path, copy_of):
    tars = write_tars(tmp_path / "tars", images)
    assert sha256_tree(pack_from(images, tars, images).directory) == expected


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_one_path_with_two_sizes_is_ambiguous_and_never_guessed(pack_from, images, records, tmp_path, kind):
    other = tmp_path / "other"
    shutil.copytree(images, other)
    (other / records[7]["image_path"]).write_bytes(b"another")
    second = other if kind == "folder" else write_tars(tmp_path / "tars", other)
    for number, roots in enumerate(([images, second], [second, images], [images, second, images])):
        data = pack_from(*roots, out=f"data{number}")
        assert data.missing.rows() == [
            ("train", "train", "shapes/gone.jpg", "no such file or directory"),
            ("train", "train", records[7]["image_path"], SEVERAL_SIZES),
        ]
        verdict = json.loads((data.directory / "verdict.json").read_text())
        [check] = [c for c in verdict["checks"] if c["id"] == "pack.ambiguous_path"]
        assert (check["count"], check["severity"], check["passed"]) == (1, "warning", False) and verdict["passed"]
        assert check["examples"] == [records[7]["image_path"]]


def test_of_a_member_that_stands_twice_in_a_tar_the_last_is_taken(pack_from, images, expected, records, tmp_path):
    tars = write_tars(tmp_path / "tars", images, count=1)
    path = tars / "00000.tar"
    with tarfile.open(path, "a") as tar:
        add(tar, records[7]["image_path"], b"new")
        add(tar, records[8]["image_path"], b"old")
        add(tar, records[8]["image_path"], (images / records[8]["image_path"]).read_bytes())
    data = pack_from(tars)
    packed = data.manifest.with_row_index().filter(image_path=records[7]["image_path"])["index"][0]
    assert data.image(packed) == b"new" and data.missing.height == 1


def test_folders_and_links_in_a_tar_are_no_images(pack_from, images, records, tmp_path):
    tars = write_tars(tmp_path / "tars", images, count=1)
    records[6]["image_path"], records[7]["image_path"] = "shapes", "link.jpg"
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    with tarfile.open(tars / "00000.tar", "a") as tar:
        for name, kind in (("shapes", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "shapes/gone.jpg"
            tar.addfile(info)
    assert pack_from(tars).missing["image_path"].to_list() == ["shapes/gone.jpg", "shapes", "link.jpg"]


def test_a_path_that_leaves_the_folder_is_not_looked_for_in_a_tar(pack_from, images, records, tmp_path):
    records[6]["image_path"], records[7]["image_path"] = "/etc/hostname", "../up.jpg"
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    tars = write_tars(tmp_path / "tars", images, count=1)
    with tarfile.open(tars / "00000.tar", "a") as tar:
        add(tar, "/etc/hostname", b"x")
        add(tar, "../up.jpg", b"x")
    reasons = pack_from(tars).missing["reason"].to_list()
    assert reasons[1:] == ["the path is absolute or leaves the folder of images"] * 2


@pytest.mark.parametrize("place", ["in the image", "in a header", "at the end", "empty", "gzip"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_tar_that_is_not_whole_is_one_line(images, tiny_tags, tmp_path, bucket, capsys, place, remote):
    tars = write_tars(tmp_path / "tars", images)
    path = tars / "00001.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    at = last.offset
    cuts = {"in the image": last.offset_data + 10, "in a header": at + 100, "at the end": at, "empty": 0}
    path.write_bytes(whole[: cuts[place]] if place in cuts else gzip.compress(whole))
    root = upload(tars, bucket, "tars") if remote else str(tars)
    (tmp_path / "a.json").write_text('[{"image_path": "a.jpg"}]', encoding="utf-8")
    command = ["pack", "--annotations", str(tmp_path / "a.json"), "--images", root, "--tags", str(tiny_tags)]
    assert main([*command, "--out", str(tmp_path / "data"), "--workers", "1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{root}/00001.tar is cut off or not a plain tar" in line
    assert not list(tmp_path.glob("data*"))


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("change", ["written anew", "shorter", "gone"])
def test_a_tar_that_changes_after_the_plan_is_one_line(images, records, tiny_tags, tmp_path, bucket, change, remote):
    tars = write_tars(tmp_path / "tars", images)
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    root = upload(tars, bucket, "tars") if remote else str(tars)
    source = Source([str(tmp_path / "a.json")], [root], tiny_tags, plan=tmp_path / "plan")
    make_plan_only(source)
    path = tars / "00001.tar"
    if change == "written anew":
        shutil.rmtree(images / "shapes" / "x", ignore_errors=True)
        (images / "a.jpg").write_bytes(b"first")
        shutil.rmtree(tars)
        write_tars(tars, images)
    elif change == "shorter":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.unlink()
    if remote:
        boto3.client("s3").delete_object(Bucket=bucket, Key="tars/00001.tar")
        upload(tars, bucket, "tars")
    says = r"0000\d\.tar is not what it was when the packing was planned"
    if remote and change == "shorter":
        says = r"00001\.tar: the object is shorter than it was"
    with pytest.raises(UserError, match=says):
        pack(source.annotations, source.images, tiny_tags, tmp_path / "data", plan=source.plan)


def test_an_object_that_changes_after_the_plan_is_one_line(images, records, tiny_tags, tmp_path, bucket):
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    source = Source([str(tmp_path / "a.json")], [upload(images, bucket, "i")], tiny_tags, plan=tmp_path / "plan")
    make_plan_only(source)
    client, key = boto3.client("s3"), f"i/{records[4]['image_path']}"
    place = {"Bucket": bucket, "Key": key}
    for change in (lambda: client.put_object(**place, Body=b"x"), lambda: client.delete_object(**place)):
        change()
        with pytest.raises(UserError, match=rf"s3://{bucket}/{key} is not what it was when the packing was planned"):
            pack(source.annotations, source.images, tiny_tags, tmp_path / "data", plan=source.plan)


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("s3://BUCKET/nothing", "no such prefix"),
        ("s3://BUCKET/nothing.tar", "no such object"),
        ("s3://BUCKET", "is not s3://BUCKET/PREFIX"),
        ("s3://no-such-bucket/x", "there is no such bucket"),
        ("file.zip", "neither a folder nor a .tar"),
        ("gone", "no such folder"),
    ],
)
def test_a_root_that_is_not_there_is_one_line(root, says, bucket, tiny_tags, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.zip").touch()
    (tmp_path / "a.json").write_text('[{"image_path": "a.jpg"}]', encoding="utf-8")
    root = root.replace("BUCKET/", f"{bucket}/")
    command = ["pack", "--annotations", "a.json", "--images", root, "--tags", str(tiny_tags)]
    assert main([*command, "--out", "data", "--workers", "1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "file.zip"]
