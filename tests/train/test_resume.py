"""kill -9 at any moment: the next start goes on, and what comes out is what an undisturbed run makes, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from ramflow import storage
from ramflow.settings import HeadSettings
from tests.train.processes import finish, kill_when, random_points, rows, start, words

STEPS = 30
LONG = {"epochs": 10, "checkpoint_every": 4, "validate_every": 10, "monitor_every": 5, "ema_decay": 0.9}


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def undisturbed(request, inputs, tmp_path_factory) -> tuple[int, dict[str, str]]:
    """How many processes, and the digests of what they make."""
    out = tmp_path_factory.mktemp("undisturbed") / "train"
    finish(words(inputs, out, **LONG), request.param)
    return request.param, storage.sha256_tree(out)


def test_killed_at_random_moments(undisturbed, inputs, tmp_path):
    count, expected = undisturbed
    out = tmp_path / "train"
    command = words(inputs, out, **LONG)
    for number, point in enumerate(random_points(count, 3, STEPS)):
        assert kill_when(command, lambda p=point: rows(out) >= p, count, victim=number % count)
    finish(command, count)
    assert storage.sha256_tree(out) == expected


def test_killed_while_a_checkpoint_is_written(undisturbed, inputs, tmp_path):
    count, expected = undisturbed
    out = tmp_path / "train"
    command = words(inputs, out, **LONG)
    folder = tmp_path / "train.partial" / "checkpoints"

    def in_the_middle() -> bool:
        newest = max((path.name for path in folder.glob("step-*.partial")), default="")
        return newest > "step-00000004" and any((folder / newest).glob("*.safetensors"))

    assert kill_when(command, in_the_middle, count, slow=0.02)
    assert list(folder.glob("step-*.partial"))
    finish(command, count)
    assert storage.sha256_tree(out) == expected


def test_a_flipped_bit_in_a_checkpoint_is_found_and_the_one_before_used(undisturbed, inputs, tmp_path):
    count, expected = undisturbed
    out = tmp_path / "train"
    command = words(inputs, out, **LONG)
    folder = tmp_path / "train.partial" / "checkpoints"
    assert kill_when(command, lambda: len(list(folder.glob("step-*[0-9]"))) > 1 and rows(out) > 13, count)
    newest = max(folder.glob("step-*[0-9]")) / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[-9] ^= 4
    newest.write_bytes(data)
    finish(command, count)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    ours = {name: digest for name, digest in storage.sha256_tree(out).items() if name != "verdict.json"}
    for event in events:
        assert event["event"] == "checkpoint" and "optimizer.safetensors" in str(event["detail"])
    unlike = {name for name, digest in ours.items() if digest != expected[name]}
    assert all("events.jsonl" in name or name.endswith("state.json") for name in unlike)


def test_sigterm_keeps_a_checkpoint_and_the_run_goes_on_elsewhere(undisturbed, inputs, tmp_path):
    """As a cluster does that wants its machine back; one of the processes is told, all end, soon."""
    count, expected = undisturbed
    out = tmp_path / "train"
    command = words(inputs, out, **LONG)
    started = start(command, count)
    while rows(out) < 11:
        time.sleep(0.002)
    os.kill(started[-1].pid, signal.SIGTERM)
    begun = time.monotonic()
    for process in started:
        process.join(20)
    assert time.monotonic() - begun < 20
    assert [process.exitcode for process in started] == [143] * count
    elsewhere = Path(shutil.copytree(tmp_path / "train.partial", tmp_path / "elsewhere" / "train.partial")).parent
    finish(words(inputs, elsewhere / "train", **LONG), count)
    assert storage.sha256_tree(elsewhere / "train") == expected


def test_the_order_of_data_does_not_change_with_the_number_of_processes(inputs, tmp_path):
    """Two processes begin, one goes on: the losses are those of one process from the start."""
    both, one = tmp_path / "both", tmp_path / "one"
    head = HeadSettings(hidden=16, layers=1, heads=2, feed_forward=32, dropout=0.0)  # whose draws follow the process
    changes = {**LONG, "drop_path": 0.0, "head": head}
    assert kill_when(words(inputs, both, **changes), lambda: rows(both) >= 11, 2)
    finish(words(inputs, both, **changes), 1)
    finish(words(inputs, one, **changes), 1)
    losses = [
        [json.loads(line).get("loss_tag") for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (both, one)
    ]
    assert len(losses[0]) == len(losses[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
