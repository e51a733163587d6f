"""The cache of shards against a real S3 endpoint behind a proxy that fails as told: processes, kills, full disks."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import boto3
import pytest

from ramflow import stage
from ramflow.cli import main
from ramflow.data.cache import ShardCache
from ramflow.data.dataset import Dataset
from ramflow.data.remote import fetch_dataset_tables
from ramflow.data.shards import ShardReader
from ramflow.errors import UserError
from ramflow.storage import publish, sha256_bytes

SIZE = 50_000
NAMES = [f"train-{n:05d}.tar" for n in range(4)]
CONTENT = {name: bytes([n]) * SIZE for n, name in enumerate(NAMES)}
DIGESTS = {name: sha256_bytes(content) for name, content in CONTENT.items()}


@pytest.fixture
def address(bucket, faults):
    """Four shards below an address, put there by another tool than ramflow."""
    for name, content in CONTENT.items():
        boto3.client("s3").put_object(Bucket=bucket, Key=f"sets/one/{name}", Body=content)
    faults.requests.clear()
    return f"s3://{bucket}/sets/one"


@pytest.fixture
def cache(address, tmp_path):
    return ShardCache(address, DIGESTS, tmp_path)


def shards_in(directory):
    """Numbers of the shards that a cache holds; nothing else but its lock file may be there."""
    numbers = {f"{digest.removeprefix('sha256:')}.tar": NAMES.index(name) for name, digest in DIGESTS.items()}
    return sorted(numbers[p.name] for p in (directory / "shards").iterdir() if p.name != "evict.lock")


PROGRAM = """
import sys
from pathlib import Path
from ramflow.data.cache import ShardCache
from tests.data.test_cache import CONTENT, DIGESTS, NAMES
cache = ShardCache(sys.argv[1], DIGESTS, Path(sys.argv[2]))
print("ready", flush=True)
assert cache.path(NAMES[0]).read_bytes() == CONTENT[NAMES[0]]
"""


def start(address, directory):
    """A process that fetches the first shard; it has said that it is about to."""
    command = [sys.executable, "-c", PROGRAM, address, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    return process


def wait_for(condition):
    while not condition():
        time.sleep(0.01)


def test_a_shard_is_fetched_once(cache, faults, tmp_path):
    for _ in range(2):
        assert cache.path(NAMES[0]).read_bytes() == CONTENT[NAMES[0]]
    assert pickle.loads(pickle.dumps(cache)).path(NAMES[0]) == cache.path(NAMES[0])
    assert len(faults.requests) == 1 and shards_in(tmp_path) == [0]


def test_the_place_and_the_bound_come_from_the_environment(address, monkeypatch, tmp_path):
    monkeypatch.setenv("RAMFLOW_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("RAMFLOW_CACHE_GB", "0.5")
    cache = ShardCache(address, DIGESTS)
    assert cache.max_bytes == 2**29 and cache.path(NAMES[0]).parent == tmp_path / "here" / "shards"
    monkeypatch.setenv("RAMFLOW_CACHE_GB", "-1")
    with pytest.raises(UserError, match="RAMFLOW_CACHE_GB=-1: a number of GiB above 0 is expected"):
        ShardCache(address, DIGESTS)


@pytest.mark.parametrize(
    "kind", ["500 InternalError", "503 SlowDown", "refuse", "silent", "trickle", "cut", "flip"]
)  # fmt: skip
def test_a_fault_that_passes_does_not_show(cache, faults, tmp_path, kind):
    faults.fail(kind, times=1)
    assert cache.path(NAMES[0]).read_bytes() == CONTENT[NAMES[0]]
    assert len(faults.requests) >= 2 and shards_in(tmp_path) == [0]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("503 SlowDown", r"the store asks to slow down.*2 times"),
        ("silent", "timeout"),
        ("trickle", r"too slow \(less than 4 MiB in 1 s\), 2 times"),
        ("cut", "the answer is cut short.*2 times"),
        ("flip", r"wrong checksum \(.*\), 2 times"),
        ("404 NoSuchKey", "there is no such object"),
    ],
)
def test_a_fault_that_stays_is_one_line_and_leaves_nothing(cache, faults, tmp_path, monkeypatch, kind, says):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    faults.fail(kind)
    with pytest.raises(UserError, match=rf"^s3://.*/sets/one/train-00000\.tar: {says}"):
        cache.path(NAMES[0])
    assert shards_in(tmp_path) == []


def test_a_shard_that_is_not_the_one_of_the_set_is_never_handed_out(cache, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"sets/one/{NAMES[0]}", Body=CONTENT[NAMES[1]])
    with pytest.raises(UserError, match=r"train-00000\.tar: wrong checksum"):
        cache.path(NAMES[0])
    assert shards_in(tmp_path) == []


def test_a_shard_deleted_under_the_loader_is_one_line(cache, bucket, tmp_path):
    reader = ShardReader(tmp_path, cache)
    assert reader.read(NAMES[0], 5, 3) == b"\0\0\0"
    for name in NAMES[:2]:
        boto3.client("s3").delete_object(Bucket=bucket, Key=f"sets/one/{name}")
        cache.forget(name)
    assert reader.read(NAMES[0], 9, 3) == b"\0\0\0"
    with pytest.raises(UserError, match=r"^s3://.*/train-00001\.tar: there is no such object \(404 NoSuchKey\)$"):
        reader.read(NAMES[1], 5, 3)


def test_processes_that_want_one_shard_fetch_it_once(address, faults, tmp_path, monkeypatch):
    monkeypatch.setenv("RAMFLOW_S3_TIMEOUT", "60")
    everyone_is_there = threading.Event()
    faults.before_body = lambda: everyone_is_there.wait(60)
    processes = [start(address, tmp_path) for _ in range(3)]
    assert [p.stdout.readline() for p in processes] == [b"ready\n"] * 3
    everyone_is_there.set()
    assert [p.wait() for p in processes] == [0, 0, 0]
    assert faults.count(NAMES[0]) == 1 and shards_in(tmp_path) == [0]


def test_threads_and_forked_children_that_want_one_shard_fetch_it_once(cache, faults, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(cache.path, [NAMES[0]] * 8))) == 1
    children = [get_context("fork").Process(target=cache.path, args=[name]) for name in (NAMES[0], *NAMES[1:2] * 2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(faults.requests) == 2 and shards_in(tmp_path) == [0, 1]


def test_a_killed_download_stops_nobody(address, cache, faults, tmp_path, monkeypatch):
    """One process waits for the lock of the one that is killed, another comes later."""
    monkeypatch.setenv("RAMFLOW_S3_TIMEOUT", "60")
    in_the_body, killed = threading.Event(), threading.Event()

    def hold():
        in_the_body.set()
        killed.wait(60)

    faults.before_body = hold
    first = start(address, tmp_path)
    assert in_the_body.wait(60)
    second = start(address, tmp_path)
    assert second.stdout.readline() == b"ready\n"
    assert [p.suffix for p in (tmp_path / "shards").iterdir() if p.name != "evict.lock"] == [".partial"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed.set()
    assert second.wait() == 0 and faults.count(NAMES[0]) == 2
    assert cache.path(NAMES[0]).read_bytes() == CONTENT[NAMES[0]] and shards_in(tmp_path) == [0]


def test_what_a_killed_process_left_is_removed_with_the_next_shard(cache, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / f"{'0' * 64}.partial").write_bytes(b"half")
    cache.path(NAMES[0])
    assert shards_in(tmp_path) == [0]


def test_the_least_recently_used_gives_way(address, tmp_path):
    cache = ShardCache(address, DIGESTS, tmp_path, max_bytes=2 * SIZE)
    for n, left in ((0, [0]), (1, [0, 1]), (0, [0, 1]), (2, [0, 2]), (3, [2, 3]), (1, [1, 3])):
        assert cache.path(NAMES[n]).read_bytes() == CONTENT[NAMES[n]]
        assert shards_in(tmp_path) == left


def test_a_reader_keeps_what_is_evicted_and_gives_its_room_back(address, tmp_path):
    cache = ShardCache(address, DIGESTS, tmp_path, max_bytes=SIZE)
    reader, other = ShardReader(tmp_path, cache), ShardReader(tmp_path, cache)
    assert reader.read(NAMES[0], 0, SIZE) == CONTENT[NAMES[0]]
    assert other.read(NAMES[1], 0, SIZE) == CONTENT[NAMES[1]]
    assert shards_in(tmp_path) == [1]
    assert reader.read(NAMES[0], 0, SIZE) == CONTENT[NAMES[0]]
    reader.read(NAMES[2], 0, 1)
    assert [shard for _, shard in reader._open] == [NAMES[2]]
    assert reader.read(NAMES[0], 0, SIZE) == CONTENT[NAMES[0]]


def test_a_shard_evicted_before_it_is_opened_is_fetched_again(address, tmp_path, faults):
    class Unlucky(ShardCache):
        def path(self, shard):
            place = super().path(shard)
            if len(faults.requests) == 1:
                place.unlink()
            return place

    descriptor = Unlucky(address, DIGESTS, tmp_path).open(NAMES[0])
    assert os.pread(descriptor, SIZE, 0) == CONTENT[NAMES[0]] and len(faults.requests) == 2
    os.close(descriptor)


def test_a_copy_that_was_damaged_on_the_disk_is_fetched_again(cache, tmp_path):
    os.truncate(cache.path(NAMES[0]), 10)
    assert ShardReader(tmp_path, cache).read(NAMES[0], 20, 5) == b"\0" * 5
    with pytest.raises(UserError, match=r"train-00000\.tar is cut off"):
        ShardReader(tmp_path, cache).read(NAMES[0], SIZE, 5)


def test_a_shard_larger_than_the_cache_is_one_line(address, tmp_path):
    with pytest.raises(UserError, match=r"train-00000\.tar has .* GiB, the cache may hold .*RAMFLOW_CACHE_GB higher"):
        ShardCache(address, DIGESTS, tmp_path, max_bytes=SIZE - 1).path(NAMES[0])
    assert shards_in(tmp_path) == []


def test_prefetching_brings_shards_in_the_background(cache, faults, tmp_path):
    cache.prefetch(NAMES[:3])
    cache.prefetch(NAMES[:3])
    assert all(cache.path(name).read_bytes() == CONTENT[name] for name in NAMES[:3])
    cache.prefetch(NAMES[:3])
    assert len(faults.requests) == 3


def test_an_error_while_prefetching_is_named_by_who_needs_the_shard(cache, faults, tmp_path):
    faults.fail("403 AccessDenied", part=NAMES[0])
    cache.prefetch(NAMES[:2])
    wait_for(lambda: cache._own.threads == 0)
    assert shards_in(tmp_path) == [1] and faults.count(NAMES[0]) == 1
    with pytest.raises(UserError, match=r"train-00000\.tar: access denied"):
        cache.path(NAMES[0])


FULL = """
import sys, os
from pathlib import Path
from ramflow.data.cache import ShardCache
from ramflow.errors import UserError
from tests.data.test_cache import CONTENT, DIGESTS, NAMES, shards_in
disk = Path(sys.argv[2])
cache = ShardCache(sys.argv[1], DIGESTS, disk)
for n in (0, 1, 2):  # the disk holds two: the first gives way
    assert cache.path(NAMES[n]).read_bytes() == CONTENT[NAMES[n]]
assert shards_in(disk) == [1, 2]
with (disk / "other").open("wb", buffering=0) as file:  # others fill the disk, all that can be evicted is not enough
    for name in NAMES[1:3]:
        cache.forget(name)
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as error:
        print(error.strerror)
    try:
        cache.path(NAMES[3])
    except UserError as error:
        print(error)
assert shards_in(disk) == []
(disk / "other").unlink()
assert cache.path(NAMES[3]).read_bytes() == CONTENT[NAMES[3]]
"""


def test_a_full_disk_evicts_then_is_one_line(address, tmp_path):
    """On a real file system with room for two shards."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -rm)")
    script = 'mount -t tmpfs -o size=120k tmpfs "$0" && exec "$@"'
    command = [sys.executable, "-c", FULL, address, str(tmp_path)]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, str(tmp_path), *command],
                          cwd=Path(__file__).parents[2], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No space left on device",
        f"{tmp_path}/shards: the disk is full, no room for {NAMES[3]} (4.66e-05 GiB): "
        "free some, or set RAMFLOW_CACHE to another disk",
    ]


def test_a_dataset_is_read_from_s3_as_from_a_disk_whatever_the_store_does(bucket, faults, tiny_data, tmp_path):
    publish(tiny_data, f"s3://{bucket}/data", last="dataset.json")
    faults.fail("503 SlowDown", times=1, part="manifest.parquet")
    faults.fail("cut", times=1, part="train-00001.tar")
    remote = fetch_dataset_tables(f"s3://{bucket}/data", tmp_path)
    here, there = Dataset(tiny_data), Dataset(remote)
    there.cache.directory = tmp_path / "shards"
    assert there.digest == here.digest and there.manifest.equals(here.manifest)
    assert faults.count(".tar") == 0
    assert [there.image(n) for n in range(len(there))] == [here.image(n) for n in range(len(here))]
    assert faults.count(".tar") == len(here.shards) + 1


@pytest.fixture
def audit(bucket, faults, tiny_data, tmp_path, monkeypatch):
    """``audit(out)``: the audit stage of ``tiny_data`` in S3, as a user calls it, with two processes; its exit code."""
    publish(tiny_data, f"s3://{bucket}/data", last="dataset.json")
    monkeypatch.setattr(stage, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("RAMFLOW_CACHE", str(tmp_path / "cache"))
    settings = [f"--set=audit.{s}" for s in ("max_missing_tags_share=0.2", "rare_below=2", "workers=2")]
    return lambda out: main(["audit", "--data", f"s3://{bucket}/data", "--out", str(tmp_path / out), *settings])


def test_a_stage_streams_whatever_the_store_does_as_from_a_disk(audit, faults, tiny_audit, tmp_path):
    for kind, part in (("503 SlowDown", "dataset.json"), ("flip", "tags.csv"), ("refuse", "1.tar"), ("cut", "2.tar")):
        faults.fail(kind, times=1, part=part)
    assert audit("out") == 0
    assert (tmp_path / "out" / "findings.parquet").read_bytes() == (tiny_audit / "findings.parquet").read_bytes()
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["passed"]


def test_a_stage_names_in_one_line_what_the_store_does_for_ever(audit, faults, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    faults.fail("500 InternalError", part="train-00001.tar")
    assert audit("out") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ramflow: ")]
    assert len(said) == 1 and re.search(r"s3://.*/train-00001\.tar: the store failed, try later \(500", said[0])
    assert not (tmp_path / "out").exists()
