"""pack stopped in the middle: killed, interrupted, out of disk; the next run goes on and gives the same bytes.

An image that is a named pipe holds a real ``ramflow pack`` at a known record: it blocks there until it is stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ramflow.storage import sha256_tree

SHARD_MB = str(4096 / 2**20)
BLOCKED_AT = 9


@pytest.fixture
def work(tmp_path, records, images_dir):
    """A folder with the images, annotations of the 24 records as train, and the command that packs them."""
    shutil.copytree(images_dir, tmp_path / "images")
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    return tmp_path


@pytest.fixture
def command(work, tiny_tags):
    paths = ["--annotations", str(work / "a.json"), "--images", str(work / "images"), "--tags", str(tiny_tags)]
    return [sys.executable, "-m", "ramflow.cli", "pack", *paths, "--out", str(work / "data"), "--shard-mb", SHARD_MB]


@pytest.fixture
def expected(pack_records, records):
    """What a run that was never stopped gives."""
    data = pack_records(records)
    return {k: v for k, v in sha256_tree(data).items() if k != "verdict.json"}


def open_when_read(pipe, process):
    """Open a named pipe for writing as soon as ``process`` has it open for reading."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)


def stop_at_the_pipe(command, image, how):
    """Run ``command`` until it blocks on ``image``, made a named pipe for the time, then send it the signal ``how``."""
    kept = image.with_suffix(".kept")
    image.rename(kept)
    os.mkfifo(image)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        writer = open_when_read(image, process)
        process.send_signal(how)
        time.sleep(0.2)  # the signal may come just before the read that it should end: then the read must return
        os.close(writer)
        try:
            error = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    kept.replace(image)
    return process.returncode, error


def finish(command, work, expected):
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    packed = {k: v for k, v in sha256_tree(work / "data").items() if k != "verdict.json"}
    assert packed == expected
    assert sorted(p.name for p in work.iterdir()) == ["a.json", "data", "images"]
    assert not [p for p in (work / "data").iterdir() if p.name.startswith(".")]
    return done.stderr


def whole_shards(work):
    return {p.name: p.stat().st_mtime_ns for p in (work / "data.partial").glob("*.tar")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_after_the_last_whole_shard(work, command, expected, records, how):
    code, error = stop_at_the_pipe(command, work / "images" / records[BLOCKED_AT]["image_path"], how)
    if how == signal.SIGINT:
        assert code == 130
        assert error.splitlines() == ["ramflow: interrupted; the same command goes on or starts again"]
    assert not (work / "data").exists()
    before = whole_shards(work)
    assert len(before) >= 2
    for name in before:  # finished shards are not read or written again: this one would be seen
        os.utime(work / "data.partial" / name, ns=(1, 1))
    log = finish(command, work, expected)
    assert {name for name in before if (work / "data" / name).stat().st_mtime_ns == 1} == set(before)
    assert "going on after" in log


def test_killed_twice(work, command, expected, records):
    for place in (3, 20):
        stop_at_the_pipe(command, work / "images" / records[place]["image_path"], signal.SIGKILL)
    finish(command, work, expected)


def test_what_another_command_left_is_not_used(work, command, expected, records):
    stop_at_the_pipe(command, work / "images" / records[BLOCKED_AT]["image_path"], signal.SIGKILL)
    (work / "a.json").write_text(json.dumps(records[::-1]), encoding="utf-8")
    subprocess.run(command, stderr=subprocess.PIPE, check=True)
    (work / "a.json").write_text(json.dumps(records), encoding="utf-8")
    finish(command, work, expected)


def test_a_run_for_another_split_does_not_go_on(work, command, records):
    stop_at_the_pipe(command, work / "images" / records[BLOCKED_AT]["image_path"], signal.SIGKILL)
    other = [f"test={word}" if word.endswith("a.json") else word for word in command]
    subprocess.run(other, stderr=subprocess.PIPE, check=True)
    assert {p.name.split("-")[0] for p in (work / "data").glob("*.tar")} == {"test"}


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_finished_shard_that_is_gone_or_short_is_packed_again(work, command, expected, records, damage):
    stop_at_the_pipe(command, work / "images" / records[BLOCKED_AT]["image_path"], signal.SIGKILL)
    shard = work / "data.partial" / "train-00000.tar"
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:1000])
    finish(command, work, expected)


def test_killed_while_the_tables_are_written(work, command, expected):
    """The end of the work: every shard is there, the manifest is not."""
    code = (
        "import os, polars, ramflow.cli as cli;"
        "polars.DataFrame.write_parquet = lambda *_: os.kill(os.getpid(), 9);"
        "cli.main(__import__('sys').argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, *command[3:]], stderr=subprocess.PIPE)
    assert killed.returncode == -signal.SIGKILL and not (work / "data").exists()
    assert "going on after 24 of 24" in finish(command, work, expected)


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(work, command, expected, tmp_path_factory):
    """On a real file system of 64 KiB, which is then given more room."""
    disk = tmp_path_factory.mktemp("disk")
    outside = [word if word != str(work / "data") else str(disk / "data") for word in command]
    script = 'mount -t tmpfs -o size=64k tmpfs "$1"; disk="$1"; shift; "$@"; echo "exit $?" >&2; ls "$disk" >&2;' \
        ' mount -o remount,size=8m "$disk"; "$@"; echo "exit $?" >&2; cp -r "$disk/data" "$(dirname "$0")"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -rm)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, str(work / "x"), str(disk), *outside],
                          stderr=subprocess.PIPE, text=True, check=True)  # fmt: skip
    first, code, left, *rest = done.stderr.splitlines()
    assert first.startswith("ramflow: ") and "No space left on device" in first, done.stderr
    assert (code, left) == ("exit 2", "data.partial")
    assert rest[0].startswith("pack train: going on after") and rest[-1] == "exit 0"
    assert {k: v for k, v in sha256_tree(work / "data").items() if k != "verdict.json"} == expected
