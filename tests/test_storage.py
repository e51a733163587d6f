"""Outputs that appear whole or not at all, digests, and a real S3 endpoint on loopback."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from ramflow import storage
from ramflow.errors import UserError


def names(directory):
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*"))


def test_digests_are_those_of_sha256sum(tmp_path):
    content = os.urandom(3 * storage.CHUNK + 7)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_bytes(content)
    (tmp_path / "a").write_bytes(b"")
    expected = "sha256:" + hashlib.sha256(content).hexdigest()
    assert storage.sha256_file(tmp_path / "b" / "file") == storage.sha256_bytes(content) == expected
    assert list(storage.sha256_tree(tmp_path)) == ["a", "b/file"]


def test_the_digest_of_a_directory_sees_names_and_contents(tmp_path):
    (tmp_path / "file").write_text("one", encoding="utf-8")
    seen = {storage.sha256_path(tmp_path)}
    (tmp_path / "file").write_text("two", encoding="utf-8")
    seen.add(storage.sha256_path(tmp_path))
    (tmp_path / "file").rename(tmp_path / "other")
    seen.add(storage.sha256_path(tmp_path))
    assert len(seen) == 3


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with storage.whole_file(path) as temporary:
        temporary.write_text("first", encoding="utf-8")
        assert not path.exists() and temporary.parent == path.parent
    with pytest.raises(ZeroDivisionError), storage.whole_file(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text() == "first" and names(path.parent) == ["file"]


def write_into(path, content, *, fail=False, claim=None):
    with storage.whole_directory(path, marker="done", claim=claim) as partial:
        before = names(partial)
        (partial / content).write_text(content, encoding="utf-8")
        if fail:
            raise ZeroDivisionError
        (partial / "done").touch()
    return before


def test_a_directory_is_replaced_whole(tmp_path):
    write_into(tmp_path / "out", "first")
    write_into(tmp_path / "out", "second")
    assert names(tmp_path) == ["out", "out/done", "out/second"]


def test_a_failure_keeps_the_old_output_and_removes_the_partial_one(tmp_path):
    write_into(tmp_path / "out", "first")
    with pytest.raises(ZeroDivisionError):
        write_into(tmp_path / "out", "second", fail=True)
    assert names(tmp_path) == ["out", "out/done", "out/first"]


def test_what_a_killed_run_left_is_not_mixed_in(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "left").touch()
    write_into(tmp_path / "out", "new")
    assert names(tmp_path) == ["out", "out/done", "out/new"]


def test_only_the_same_claim_goes_on(tmp_path):
    for claim in ({"from": 1}, {"from": 1}, {"from": 2}):
        with pytest.raises(ZeroDivisionError):
            write_into(tmp_path / "out", "shard", fail=True, claim=claim)
    (tmp_path / "out.partial" / ".half.tar.77.partial").touch()
    kept = write_into(tmp_path / "out", "last", claim={"from": 2})
    assert kept == [".claim.json", "shard"]
    assert names(tmp_path) == ["out", "out/done", "out/last", "out/shard"]
    with pytest.raises(ZeroDivisionError):
        write_into(tmp_path / "out", "shard", fail=True, claim={"from": 3})
    assert write_into(tmp_path / "out", "last", claim={"from": 4}) == [".claim.json"]


def test_other_peoples_directories_and_files_are_refused(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    for name, says in (("home", "holds other files"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"{name} {says}"):
            write_into(tmp_path / name, "new")
    assert names(tmp_path) == ["file", "home", "home/thesis.txt"]


def test_an_empty_directory_also_the_current_one_is_taken(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    write_into(storage.Path("."), "new")
    assert names(tmp_path) == ["out", "out/done", "out/new"]


def test_a_link_to_another_disk_stays_a_link(tmp_path):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "out").symlink_to("big-disk")
    write_into(tmp_path / "out", "new")
    write_into(tmp_path / "out", "newer")
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "big-disk") == ["done", "newer"]


def test_a_mount_point_is_refused_in_words():
    with pytest.raises(UserError, match="/ is a mount point"):
        write_into(storage.Path("/"), "new")


def test_a_local_input_is_itself_or_missing(tmp_path):
    assert storage.fetch(tmp_path, tmp_path / "cache") == tmp_path
    with pytest.raises(UserError, match=r"no such file or directory: .*gone"):
        storage.fetch(tmp_path / "gone", tmp_path / "cache")


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree" / "model").mkdir(parents=True)
    for name in ("verdict.json", "zeros", "model/config.json"):
        (tmp_path / "tree" / name).write_bytes(name.encode() * 100)
    return tmp_path / "tree"


def test_a_tree_comes_back_from_s3_as_it_was(bucket, tree, tmp_path):
    storage.publish(tree, f"s3://{bucket}/runs/audit", last="verdict.json")
    storage.publish(tree, f"s3://{bucket}/runs/audit-of-another", last="verdict.json")
    for address in (f"s3://{bucket}/runs/audit", f"s3://{bucket}/runs/audit/"):
        back = storage.fetch(address, tmp_path / "cache")
        assert storage.sha256_tree(back) == storage.sha256_tree(tree)
    one = storage.fetch(f"s3://{bucket}/runs/audit/model/config.json", tmp_path / "cache")
    assert one.read_bytes() == (tree / "model/config.json").read_bytes()


def test_the_file_that_vouches_goes_last(bucket, tree, caplog):
    with caplog.at_level("INFO", "werkzeug"):  # the endpoint's own log of requests
        storage.publish(tree, f"s3://{bucket}/out", last="verdict.json")
    puts = [r.getMessage().split("PUT ")[1].split()[0] for r in caplog.records if "PUT " in r.getMessage()]
    assert puts == [f"/{bucket}/out/{name}" for name in ("model/config.json", "zeros", "verdict.json")]


def test_what_is_gone_from_s3_is_gone_from_the_cache(bucket, tree, tmp_path):
    storage.publish(tree, f"s3://{bucket}/out", last="verdict.json")
    storage.fetch(f"s3://{bucket}/out", tmp_path / "cache")
    boto3.client("s3").delete_object(Bucket=bucket, Key="out/zeros")
    boto3.client("s3").put_object(Bucket=bucket, Key="out/folder/")
    assert names(storage.fetch(f"s3://{bucket}/out", tmp_path / "cache")) == [
        "model", "model/config.json", "verdict.json"
    ]  # fmt: skip


def test_nothing_there_and_a_refusal_are_one_line(bucket, tree, tmp_path):
    with pytest.raises(UserError, match=r"no such object or prefix: s3://"):
        storage.fetch(f"s3://{bucket}/nothing", tmp_path / "cache")
    for refused in (
        lambda: storage.fetch("s3://no-such-bucket/x", tmp_path / "cache"),
        lambda: storage.publish(tree, "s3://no-such-bucket/x", last="verdict.json"),
    ):
        with pytest.raises(UserError, match=r"^s3://no-such-bucket/x.*: there is no such bucket \(404 NoSuchBucket\)$"):
            refused()
    with pytest.raises(UserError, match=r"is not s3://BUCKET/PREFIX"):
        storage.publish(tree, "s3://only-a-bucket", last="verdict.json")


TABLES = {"manifest.parquet": b"rows" * 999, "index.safetensors": b"numbers", "tags.csv": b"id,name"}
SHARDS = {"train-00000.tar": b"images", "train-00001.tar": b"more images"}


@pytest.fixture
def remote_set(bucket):
    """A packed dataset below ``s3://BUCKET/sets/one``, put there by another tool than ramflow."""
    client = boto3.client("s3")

    def put(name, content):
        client.put_object(Bucket=bucket, Key=f"sets/one/{name}", Body=content)

    for name, content in (TABLES | SHARDS).items():
        put(name, content)
    files = {name: storage.sha256_bytes(content) for name, content in (TABLES | SHARDS).items()}
    put("dataset.json", json.dumps({"files": files}))
    put("verdict.json", "{}")
    return f"s3://{bucket}/sets/one", put


def test_only_the_tables_of_a_dataset_are_brought_here(remote_set, faults, tmp_path):
    address, _ = remote_set
    old = tmp_path / "cache" / address.removeprefix("s3://") / "train-00000.tar"
    old.parent.mkdir(parents=True)
    old.touch()
    local = storage.fetch_dataset_tables(address + "/", tmp_path / "cache")
    assert names(local) == sorted(["dataset.json", "shards.json", "verdict.json", *TABLES])
    assert {name: (local / name).read_bytes() for name in TABLES} == TABLES
    assert json.loads((local / "shards.json").read_text()) == {"address": address}
    assert faults.count("list-type") == 0 and faults.count(".tar") == 0


def test_only_what_differs_is_fetched_again(remote_set, faults, tmp_path):
    address, put = remote_set
    local = storage.fetch_dataset_tables(address, tmp_path / "cache")
    (local / "tags.csv").write_bytes(b"damaged")
    faults.requests.clear()
    assert storage.fetch_dataset_tables(address, tmp_path / "cache") == local
    assert sorted(path.split("/")[-1] for _, path in faults.requests) == ["dataset.json", "tags.csv", "verdict.json"]
    put("dataset.json", json.dumps({"files": {"tags.csv": storage.sha256_bytes(b"new")}}))
    put("tags.csv", b"new")
    boto3.client("s3").delete_object(Bucket=address.split("/")[2], Key="sets/one/verdict.json")
    storage.fetch_dataset_tables(address, tmp_path / "cache")
    assert names(local) == ["dataset.json", "shards.json", "tags.csv"] and (local / "tags.csv").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tags.csv", b"of another set", r"/sets/one/tags\.csv: wrong checksum \(sha256 .* instead of .*\), 2 times"),
        ("dataset.json", b"{", r"/sets/one/dataset\.json is damaged: pack the dataset again"),
        ("dataset.json", b'{"files": {"../../x": "sha256:0"}}', r"/sets/one/dataset\.json is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_remote_dataset_is_one_line(remote_set, tmp_path, monkeypatch, name, content, says):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    address, put = remote_set
    put(name, content)
    with pytest.raises(UserError, match=f"^s3://.*{says}"):
        storage.fetch_dataset_tables(address, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(f"*{storage.PARTIAL}"))


def test_an_address_without_a_dataset_is_one_line(bucket, tmp_path):
    with pytest.raises(UserError, match=r"^s3://.*/nothing is not a packed dataset: it has no dataset\.json$"):
        storage.fetch_dataset_tables(f"s3://{bucket}/nothing", tmp_path / "cache")


def test_several_processes_bring_one_input(bucket, tree, tmp_path):
    """None removes what another is just writing."""
    storage.publish(tree, f"s3://{bucket}/out", last="verdict.json")
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: storage.fetch(f"s3://{bucket}/out", tmp_path / "cache"), range(4)))
    assert len(set(places)) == 1 and storage.sha256_tree(places[0]) == storage.sha256_tree(tree)
