"""pack stopped in the middle: killed, interrupted, out of disk; the next run goes on and gives the same bytes.

An image that is a named pipe holds a real ``ramflow pack`` at a known record, after the plan was made with the image
in its place: it blocks there until it is stopped.
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

from ramflow.data import pack as pack_module
from ramflow.data.pack import pack
from ramflow.errors import UserError
from ramflow.storage import sha256_tree
from tests.test_workers import alive, processes_of

SHARD_MB = str(4096 / 2**20)
BLOCKED_AT = 9


@pytest.fixture
def work(tmp_path, records, images_dir):
    """A folder with the images, and annotations of the 24 records as train."""
    shutil.copytree(images_dir, tmp_path / "images")
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    return tmp_path


@pytest.fixture
def command(work, tiny_tags):
    """The command that packs them, without ``--out``."""
    paths = ["--annotations", str(work / "train.json"), "--images", str(work / "images"), "--tags", str(tiny_tags)]
    return [sys.executable, "-m", "ramflow.cli", "pack", *paths, "--shard-mb", SHARD_MB, "--workers", "1",
            "--out", str(work / "data")]  # fmt: skip


@pytest.fixture
def planned(work, command):
    """The same command with a plan that is made already."""
    kept = [*command, "--plan", str(work / "plan")]
    made = subprocess.run([w for w in kept if w not in ("--out", str(work / "data"))], capture_output=True, check=True)
    assert int(made.stdout) > 5
    return kept


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
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        writer = open_when_read(image, process)
        workers = processes_of(process.pid)
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        time.sleep(0.2)  # the signal may come just before the read that it should end: then the read must return
        os.close(writer)
        try:
            error = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    while any(alive(pid) for pid in workers):
        time.sleep(0.01)
    kept.replace(image)
    return process.returncode, error


def killed_in(command, where, call):
    """Run ``command`` until ``call`` calls of the function ``where`` are done, then kill it."""
    module, _, name = where.rpartition(".")
    code = (
        f"import os, sys, itertools, {module} as module, ramflow.data.pack, ramflow.cli\n"
        f"real, calls = module.{name}, itertools.count(1)\n"
        "def kill(*a, **k):\n"
        f"    if next(calls) > {call}: os.kill(os.getpid(), 9)\n"
        "    return real(*a, **k)\n"
        f"module.{name} = kill\n"
        "sys.exit(ramflow.cli.main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command[3:]], stderr=subprocess.PIPE, text=True)
    return done.returncode


def finish(command, work, expected):
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    packed = {k: v for k, v in sha256_tree(work / "data").items() if k != "verdict.json"}
    assert packed == expected
    assert {p.name for p in work.iterdir()} - {"plan"} == {"train.json", "data", "images"}
    assert not [p for p in (work / "data").iterdir() if p.name.startswith(".") or p.is_dir()]
    return done.stderr


def whole_shards(work):
    return {p.name: p.stat().st_mtime_ns for p in (work / "data.partial").glob("*.tar")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_run_goes_on_after_the_whole_shards(work, planned, expected, records, how, workers):
    planned[planned.index("--workers") + 1] = str(workers)
    code, error = stop_at_the_pipe(planned, work / "images" / records[BLOCKED_AT]["image_path"], how)
    if how == signal.SIGINT:
        assert code == 130
        assert error.splitlines() == ["ramflow: interrupted; the same command goes on or starts again"]
    assert not (work / "data").exists()
    before = whole_shards(work)
    assert len(before) >= 2
    for name in before:  # finished shards are not read or written again: this one would be seen
        os.utime(work / "data.partial" / name, ns=(1, 1))
    log = finish(planned, work, expected)
    assert {name for name in before if (work / "data" / name).stat().st_mtime_ns == 1} >= set(list(before)[:2])
    assert "pack: going on after" in log


def test_killed_twice(work, planned, expected, records):
    for place in (3, 20):
        stop_at_the_pipe(planned, work / "images" / records[place]["image_path"], signal.SIGKILL)
    finish(planned, work, expected)


@pytest.mark.parametrize("call", [0, 1, 3, 4, 17])
def test_killed_before_any_file_gets_its_name(work, command, expected, call):
    """The plan, then the rows, the missing, the tar and the note of each shard."""
    assert killed_in(command, "os.replace", call) == -signal.SIGKILL
    finish(command, work, expected)


def test_killed_while_the_tables_are_written(work, command, expected):
    """The end of the work: every shard is there, the manifest is not."""
    assert killed_in(command, "ramflow.data.tables.write_index", 0) == -signal.SIGKILL and not (work / "data").exists()
    shards = len(whole_shards(work))
    assert f"going on after {shards} of {shards} shards" in finish(command, work, expected)


def test_a_finished_plan_is_kept(work, records, tiny_tags, monkeypatch):
    arguments = ([str(work / "train.json")], work / "images", tiny_tags, work / "data")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "pack_shard", stop)
        pack(*arguments)
    monkeypatch.setattr(pack_module, "make_plan", None)
    assert pack(*arguments).metrics["samples"] == len(records)


def test_what_another_command_left_is_not_used(work, command, expected, records):
    assert killed_in(command, "ramflow.data.pack.pack_shard", 3) == -signal.SIGKILL
    (work / "train.json").write_text(json.dumps(records[::-1]), encoding="utf-8")
    subprocess.run(command, stderr=subprocess.PIPE, check=True)
    (work / "train.json").write_text(json.dumps(records), encoding="utf-8")
    finish(command, work, expected)


def test_a_run_for_another_split_does_not_go_on(work, command):
    assert killed_in(command, "ramflow.data.pack.pack_shard", 3) == -signal.SIGKILL
    other = [f"test={word}" if word.endswith("train.json") else word for word in command]
    subprocess.run(other, stderr=subprocess.PIPE, check=True)
    assert {p.name.split("-")[0] for p in (work / "data").glob("*.tar")} == {"test"}


@pytest.mark.parametrize("damage", ["gone", "short", "no rows", "no note"])
def test_a_finished_shard_that_is_not_whole_is_packed_again(work, command, expected, damage):
    assert killed_in(command, "ramflow.data.pack.pack_shard", 3) == -signal.SIGKILL
    partial = work / "data.partial"
    shard = partial / "train-00000.tar"
    if damage == "short":
        shard.write_bytes(shard.read_bytes()[:1000])
    else:
        pieces = partial / ".work" / "pieces"
        {"gone": shard, "no rows": pieces / "train-00000.tar.rows.parquet", "no note": pieces / "train-00000.tar.json"}[
            damage
        ].unlink()
    assert "going on after 2 of" in finish(command, work, expected)


@pytest.mark.parametrize("change", ["gone", "longer", "a folder"])
def test_an_image_that_changes_after_the_plan_is_one_line(work, planned, expected, records, capsys, change):
    image = work / "images" / records[BLOCKED_AT]["image_path"]
    data = image.read_bytes()
    image.unlink()
    if change == "longer":
        image.write_bytes(data + b"x")
    elif change == "a folder":
        image.mkdir()
    done = subprocess.run(planned, stderr=subprocess.PIPE, text=True)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2 and f"{image} is not what it was when the packing was planned" in line
    assert not (work / "data").exists()
    if change == "a folder":
        image.rmdir()
    image.write_bytes(data)
    assert "going on after" in finish(planned, work, expected)


def test_a_plan_of_something_else_is_refused(work, planned, tiny_tags):
    with pytest.raises(UserError, match=r"plan is the plan of other annotations"):
        pack([f"test={work / 'train.json'}"], work / "images", tiny_tags, work / "data", plan=work / "plan")
    assert sorted(p.name for p in work.iterdir()) == ["images", "plan", "train.json"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(work, command, expected, tmp_path_factory, workers):
    """On a real file system of 160 KiB, which is then given more room."""
    command[command.index("--workers") + 1] = workers
    disk = tmp_path_factory.mktemp("disk")
    outside = [word if word != str(work / "data") else str(disk / "data") for word in command]
    script = 'mount -t tmpfs -o size=160k tmpfs "$1"; disk="$1"; shift; "$@"; echo "exit $?" >&2; ls "$disk" >&2;' \
        ' mount -o remount,size=8m "$disk"; "$@"; echo "exit $?" >&2; cp -r "$disk/data" "$(dirname "$0")"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -rm)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, str(work / "x"), str(disk), *outside],
                          stderr=subprocess.PIPE, text=True, check=True)  # fmt: skip
    first, code, left, *rest = done.stderr.splitlines()
    assert first.startswith("ramflow: ") and "No space left on device" in first, done.stderr
    assert (code, left) == ("exit 2", "data.partial")
    assert rest[0].startswith("pack: going on after") and rest[-1] == "exit 0"
    assert {k: v for k, v in sha256_tree(work / "data").items() if k != "verdict.json"} == expected
