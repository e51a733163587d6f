"""Outputs that appear whole or not at all, digests, and a real S3 endpoint on loopback."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest
from safetensors.numpy import save_file

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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_outputs_are_as_readable_as_other_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with storage.whole_file(tmp_path / "file") as temporary:
            save_file({"x": np.zeros(1)}, temporary)
        with storage.whole_directory(tmp_path / "folder", marker="done") as partial:
            save_file({"x": np.zeros(1)}, partial / "file")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "file", tmp_path / "folder" / "file")] == [mode, mode]


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


def test_several_processes_bring_one_input(bucket, tree, tmp_path):
    """None removes what another is just writing."""
    storage.publish(tree, f"s3://{bucket}/out", last="verdict.json")
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: storage.fetch(f"s3://{bucket}/out", tmp_path / "cache"), range(4)))
    assert len(set(places)) == 1 and storage.sha256_tree(places[0]) == storage.sha256_tree(tree)
