"""One measurement: a command in its own process, its time, its processor time and the memory of all its processes.

Memory is the highest sum, over the process and all below it, of what the machine cannot take back: anonymous and shared
memory (``RssAnon`` and ``RssShmem`` of Linux, read every 20 ms). Pages of files are not counted: they are the page
cache's. Beside it stand the proportional set size (``Pss``, files included, read as often as costs under 5 % of the
time) and the largest single process (``ru_maxrss``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

INTERVAL = 0.02
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """What one run of a command cost, and what it printed."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of processor time, of all processes."""
    memory: int
    """Bytes that the machine cannot take back, summed over the processes, at the highest."""
    pss: int
    """Bytes, proportional set size summed over the processes, at the highest seen."""
    maxrss: int
    """Bytes, of the largest single process."""
    result: dict[str, Any] = field(default_factory=dict)
    """The last line of what it printed, where that is a JSON object."""


def run_command(command: Sequence[str], threads: int | None = None) -> Run:
    """Run a command and measure it.

    Args:
        command: program and arguments.
        threads: threads of numpy, torch and polars in it; as they choose when not given.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if threads:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    watcher = _Watcher(process.pid)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    watcher.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}: ...{said[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, watcher.memory, watcher.pss, usage.ru_maxrss * 1024, _last_object(said))


def run_function(function: str, *arguments: Any, threads: int | None = None) -> Run:
    """Run ``module:function`` with arguments of JSON in a new Python; what it returns is the run's ``result``."""
    return run_command([sys.executable, "-m", "benchmarks.call", function, json.dumps(arguments)], threads)


def _last_object(said: str) -> dict[str, Any]:
    lines = said.rstrip().rsplit("\n", 1)
    try:
        value = json.loads(lines[-1])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class _Watcher:
    """A thread that reads the memory of a process and of all below it until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self.memory = self.pss = 0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        next_pss = 0.0
        while not self._stopped.wait(INTERVAL):
            tree = list(process_tree(self._pid))
            self.memory = max(self.memory, sum(unreclaimable(pid) for pid in tree))
            start = time.monotonic()
            if start >= next_pss:
                self.pss = max(self.pss, sum(smaps(pid, "Pss:") for pid in tree))
                next_pss = time.monotonic() + 20 * (time.monotonic() - start)


def process_tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from process_tree(int(child))
    except OSError:  # it ended meanwhile
        return


def unreclaimable(pid: int) -> int:
    """Bytes of anonymous and shared memory of a process; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))


def smaps(pid: int, *names: str) -> int:
    """Sum of the given lines of a process's ``smaps_rollup``, bytes; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(names))


def private_memory() -> int:
    """Bytes that only this process has: what ends with it."""
    return smaps(os.getpid(), "Private_")


def private_dirty() -> int:
    """Bytes of :func:`private_memory` that are not pages of files as they are on disk."""
    return smaps(os.getpid(), "Private_Dirty")


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The median, and half of the range as a share of it."""
    middle = median(values)
    return middle, (max(values) - min(values)) / 2 / middle if middle else 0.0


def warm(*files: Path) -> None:
    """Read files once, so that they are in the page cache."""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
