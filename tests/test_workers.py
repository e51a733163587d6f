"""Work in several processes: order, errors, Ctrl-C, kill and a full disk, all with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from ramflow import workers
from ramflow.errors import UserError
from tests.conftest import all_records


def double(number: int) -> int:
    if number < 0:
        raise UserError(f"{number} is negative")
    return 2 * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def processes_of(parent: int) -> list[int]:
    """Worker processes that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    threads = [p.read_text().split() for p in Path(f"/proc/{parent}/task").glob("*/children")]
    found = {int(pid) for pids in (children, *threads) for pid in pids}
    return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 120):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return result


@pytest.mark.parametrize("count", [1, 2])
def test_results_keep_the_order_of_the_items(count):
    assert list(workers.map_in_order(double, range(500), count)) == list(range(0, 1000, 2))
    assert list(workers.map_in_order(double, [], count)) == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_users_error_comes_through(count):
    with pytest.raises(UserError, match="-1 is negative"):
        list(workers.map_in_order(double, [1, -1, *range(500)], count))


def test_few_items_are_taken_ahead():
    taken = []
    results = workers.map_in_order(double, (taken.append(n) or n for n in range(1000)), 2, chunk=2)
    assert next(results) == 0 and len(taken) <= 2 * workers.CHUNKS_AHEAD * 2
    results.close()


def test_a_killed_worker_is_one_line():
    with pytest.raises(UserError, match="one of 2 worker processes was killed, often for want of memory: use fewer"):
        list(workers.map_in_order(die, range(3), 2))


def wait_to_be_stopped(number: int) -> int:
    while number:
        workers.check_stopped()
        time.sleep(0.01)
    return number


def test_long_work_ends_when_its_results_are_not_waited_for():
    """Without ``check_stopped`` this would wait for ever."""
    results = workers.map_in_order(wait_to_be_stopped, range(2), 2, chunk=1)
    assert next(results) == 0
    results.close()


def polars_threads(_: int) -> int:
    return pl.thread_pool_size()


def test_polars_has_one_thread_in_a_worker(monkeypatch):
    monkeypatch.delenv(workers.POLARS_THREADS, raising=False)
    assert list(workers.map_in_order(polars_threads, range(2), 2, chunk=1)) == [1, 1]
    assert workers.POLARS_THREADS not in os.environ
    monkeypatch.setenv(workers.POLARS_THREADS, "3")
    assert list(workers.map_in_order(polars_threads, range(2), 2, chunk=1)) == [3, 3]
    assert os.environ[workers.POLARS_THREADS] == "3"


@pytest.fixture(scope="module")
def large_data(_packer):
    return _packer(all_records() * 150, shard_bytes=1 << 20)


@pytest.fixture
def long_audit(large_data, tmp_path):
    """The command of an audit that takes some seconds."""
    (tmp_path / "work").mkdir()
    out = tmp_path / "work" / "audit"
    return [sys.executable, "-m", "ramflow.cli", "audit", "--data", str(large_data), "--out", str(out)]


def test_an_interrupted_audit_leaves_nothing_behind(long_audit, tmp_path):
    """SIGINT goes to the whole group of processes, as a terminal sends it."""
    with subprocess.Popen(long_audit, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        found = wait_for(lambda: processes_of(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert error.splitlines() == ["ramflow: interrupted; the same command goes on or starts again"]
    assert not list((tmp_path / "work").iterdir())
    assert not [pid for pid in found if alive(pid)]


def test_the_workers_of_a_killed_audit_end(long_audit):
    with subprocess.Popen(long_audit, stderr=subprocess.DEVNULL) as process:
        found = wait_for(lambda: len(pids := processes_of(process.pid)) == 2 and pids)
        process.kill()
    wait_for(lambda: not [pid for pid in found if alive(pid)])


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_data, tmp_path):
    """On a real file system of two pages: the first table does not fit."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -rm)")
    script = 'mount -t tmpfs -o size=8k tmpfs "$0" && "$@"; echo "exit $?" >&2; ls -A "$0" >&2'
    command = [sys.executable, "-m", "ramflow.cli", "audit", "--data", str(tiny_data), "--out", str(tmp_path / "audit")]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, str(tmp_path), *command, "--set", "audit.workers=1"],
                          stderr=subprocess.PIPE, text=True)  # fmt: skip
    line, code, *left = done.stderr.splitlines()
    assert line.startswith("ramflow: ") and "No space left on device" in line, done.stderr
    assert code == "exit 2" and not left
