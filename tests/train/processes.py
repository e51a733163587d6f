"""Training runs in processes of their own, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

LIMIT = 120
"""Seconds that a run may take."""


def words(inputs: Mapping[str, str], out: Path, **changes) -> list[str]:
    """The command line of a run with the settings of ``artifacts.settings`` and ``changes``."""
    from tests.train import artifacts

    settings = artifacts.settings(**changes).model_dump_json()
    given = [word for name, path in inputs.items() for word in (f"--{name}", path)]
    return ["train", "--params", f'{{"train": {settings}}}', *given, "--out", str(out)]


def start(words: list[str], processes: int = 1, slow: float = 0.0) -> list[BaseProcess]:
    """Begin a run; ``slow`` is how many seconds each file of a checkpoint takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ramflow.train.stage", "tests.train.processes"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for number in range(processes):
        environment = {"OMP_NUM_THREADS": "1"}
        if processes > 1:
            environment |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes),
                            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        log = Path(f"{words[-1]}.{number}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        started.append(context.Process(target=_run, args=(words, environment, slow, log)))
        started[-1].start()
    return started


def _run(words: list[str], environment: dict[str, str], slow: float, log: Path) -> None:
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    os.environ |= environment
    torch.set_num_threads(1)
    if slow:
        _slow_down(slow)
    from ramflow.cli import main

    sys.exit(main(words))


def _slow_down(seconds: float) -> None:
    from ramflow.train import checkpoint_files

    save = checkpoint_files.save_file

    def slowly(*arguments, **options):
        time.sleep(seconds)
        save(*arguments, **options)
        time.sleep(seconds)

    checkpoint_files.save_file = slowly


def finish(words: list[str], processes: int = 1) -> None:
    """A run to its end."""
    started = start(words, processes)
    for process in started:
        process.join(LIMIT)
    said = [Path(f"{words[-1]}.{number}.log").read_text()[-1500:] for number in range(processes)]
    assert [process.exitcode for process in started] == [0] * processes, said


def kill_when(
    words: list[str], ready: Callable[[], bool], processes: int = 1, slow: float = 0.0, victim: int = 0
) -> bool:
    """Kill -9 one process of a run as soon as ``ready``, then the others; false when it ended before."""
    started = start(words, processes, slow)
    end = time.monotonic() + LIMIT
    while not ready() and time.monotonic() < end and started[victim].is_alive():
        time.sleep(0.002)
    alive = started[victim].is_alive()
    for process in (started[victim], *started):
        process.kill()
    for process in started:
        process.join()
    return alive


def rows(out: Path) -> int:
    """Rows of the metrics of a run that goes on."""
    path = out.with_name(f"{out.name}.partial") / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def random_points(seed: int, count: int, most: int) -> list[int]:
    """Numbers of rows to kill at, rising."""
    return sorted(random.Random(seed).sample(range(1, most), count))
