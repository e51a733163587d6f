"""Checkpoints of killed processes: whatever the moment, the last whole one is found, in the folder and in S3."""

from __future__ import annotations

import multiprocessing
import os
import random
import time

import boto3
import pytest

from ramflow.train.checkpoint import Checkpoints
from tests.train.checkpoint_runs import loaded, names
from tests.train.saving import best_of, check, go_on


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.saving"])
    return context


def killed(processes, folder, remote, size, moment):
    """Start a process that goes on, kill it after so many messages and seconds; what it had told."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RAMFLOW_"))}
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=go_on, args=(folder, remote, environment, size, there))
    process.start()
    there.close()
    messages, seconds = moment
    told = []
    for _ in range(messages):
        told.append(here.recv())
    time.sleep(seconds)
    process.kill()
    process.join()
    while True:
        try:
            told.append(here.recv())
        except (EOFError, OSError):
            return told


def test_a_kill_at_any_moment_leaves_the_last_whole_one(processes, tmp_path):
    folder, chance, torn = tmp_path / "checkpoints", random.Random(5), 0
    size = 30_000
    for _ in range(15):
        told = killed(processes, folder, "", size, (chance.randrange(1, 6), chance.random() * 0.03))
        torn += any(name.endswith(".partial") for name in names(folder))
        checkpoints = Checkpoints(folder, 2)
        found = checkpoints.load()
        check(checkpoints, found, size)
        assert found.step >= max(message["whole"] for message in told)
        assert checkpoints.failures() == []
    assert torn >= 3, "the kills must hit checkpoints that are being written"


def test_a_kill_during_an_upload_leaves_the_last_whole_one_there(processes, bucket, faults, tmp_path):
    folder, remote = tmp_path / "checkpoints", f"s3://{bucket}/runs/abc"
    chance, torn, copied = random.Random(6), 0, 0
    faults.before_body = lambda: time.sleep(0.01)
    for number in range(5):
        told = killed(processes, folder, remote, 1000, (chance.randrange(3, 6), chance.random() * 0.1))
        copied = max([copied, *(message.get("copied", 0) for message in told)])
        assert not any("failed" in message for message in told)
        keys = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
        vouched = {key.removesuffix("state.json") for key in keys if key.endswith("state.json")}
        torn += any("/step-" in key and key.rpartition("/")[0] + "/" not in vouched for key in keys)
        step, failures = loaded(tmp_path / f"new-{number}", remote)
        assert step >= copied > 0 and failures == []
    assert torn >= 2, "the kills must hit uploads"
    assert best_of(copied) >= 3
