"""Shards read ahead: once, only where they fit into memory, and never in the way of an error that the reader names."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest

from ramflow.data import read_ahead
from ramflow.data.dataset import Dataset
from ramflow.data.read_ahead import ReadAhead, free_memory


def bytes_read() -> int:
    """By this process, from files and caches alike."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def finish() -> None:
    for thread in threading.enumerate():
        if thread.name == "ramflow-read-ahead":
            thread.join()


@pytest.fixture
def shards(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(10 << 20))
    return tmp_path


def test_each_file_is_read_whole_and_once(shards):
    ahead = ReadAhead(shards)
    before = bytes_read()
    ahead.prefetch(["a", "gone", "b"])
    finish()
    assert (20 << 20) <= bytes_read() - before < (21 << 20)
    ahead.prefetch(["b", "c"])
    finish()
    assert (30 << 20) <= bytes_read() - before < (31 << 20)


def test_files_that_do_not_fit_into_memory_are_left_alone(shards, monkeypatch):
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 30 << 20)
    before = bytes_read()
    ReadAhead(shards).prefetch(["a", "b"])
    finish()
    assert bytes_read() - before < 1 << 20


def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch):
    machine = free_memory()
    assert machine > 1 << 20
    monkeypatch.setattr(read_ahead, "CGROUP", tmp_path)
    for name, text in (("max", "1000000"), ("current", "700000"), ("stat", "anon 1\nfile 200000")):
        (tmp_path / f"memory.{name}").write_text(text, encoding="ascii")
    assert free_memory() == 500000
    (tmp_path / "memory.max").write_text("max", encoding="ascii")
    assert free_memory() > 1 << 20


def test_a_dataset_reads_its_shards_ahead_and_still_travels(tiny_data):
    data = Dataset(tiny_data)
    before = bytes_read()
    data.prefetch([shard.name for shard in data.shards])
    finish()
    assert bytes_read() - before >= sum(shard.bytes for shard in data.shards)
    assert pickle.loads(pickle.dumps(data)).image(0) == data.image(0)
