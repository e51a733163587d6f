"""Random access into shards, in one process and in several."""

from __future__ import annotations

import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from ramflow.data import shards
from ramflow.data.shards import ShardReader, add_member
from ramflow.errors import UserError


@pytest.fixture
def directory(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        assert add_member(tar, "one", b"1" * 700) == 512
        assert add_member(tar, "two", b"2" * 5) == 512 + 1024 + 512
    return tmp_path


def test_members_carry_no_trace_of_the_machine(directory):
    with tarfile.open(directory / "a.tar") as tar:
        for info in tar:
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)


def test_bytes_come_back_by_offset_also_in_another_process(directory):
    reader = ShardReader(directory)
    assert reader.read("a.tar", 2048, 5) == b"22222"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(reader.read, "a.tar", 512, 700).result() == b"1" * 700


def test_a_missing_and_a_short_shard_are_one_line(directory):
    with pytest.raises(UserError, match=r"b\.tar is gone: fetch or pack"):
        ShardReader(directory).read("b.tar", 0, 1)
    with pytest.raises(UserError, match=r"a\.tar is cut off: fetch or pack"):
        ShardReader(directory).read("a.tar", 512, 1 << 20)


def test_few_shards_are_open_at_a_time(directory, monkeypatch):
    monkeypatch.setattr(shards, "MAX_OPEN", 3)
    for n in range(10):
        (directory / f"{n}.tar").write_bytes(bytes([n]))
    reader = ShardReader(directory)
    for _ in range(2):
        assert [reader.read(f"{n}.tar", 0, 1) for n in range(10)] == [bytes([n]) for n in range(10)]
        assert len(reader._open) <= 3
