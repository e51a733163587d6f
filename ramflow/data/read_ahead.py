"""Local shards read ahead of their use, from front to back, so that random reads find them in the page cache."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

CHUNK = 4 << 20
CGROUP = Path("/sys/fs/cgroup")
SHARE_OF_MEMORY = 0.5
"""The most of the memory that is free for the page cache: more would push out what is still to be read."""


class ReadAhead:
    """Reads files in the background, one after another, and keeps nothing of them itself.

    A disk gives several times more bytes a second in one long read than in many short ones in random order.
    """

    def __init__(self, directory: Path) -> None:
        """Nothing is read yet."""
        self.directory = directory
        self._wanted: deque[str] = deque()
        self._done: set[str] = set()
        self._guard = threading.Lock()
        self._running = False

    def prefetch(self, names: Sequence[str]) -> None:
        """Read those of the files that the last call did not name; none where they do not fit into memory."""
        sizes = [_size(self.directory / name) for name in names]
        if sum(sizes) > SHARE_OF_MEMORY * free_memory():
            return
        with self._guard:
            self._wanted.extend(name for name in names if name not in self._done)
            self._done = set(names)
            if self._wanted and not self._running:
                self._running = True
                threading.Thread(target=self._work, name="ramflow-read-ahead", daemon=True).start()

    def _work(self) -> None:
        buffer = bytearray(CHUNK)
        while True:
            with self._guard:
                if not self._wanted:
                    self._running = False
                    return
                name = self._wanted.popleft()
            with suppress(OSError), (self.directory / name).open("rb", buffering=0) as file:  # the reader will name it
                while file.readinto(buffer):
                    pass


def free_memory() -> int:
    """Bytes that the machine, or this container, can still fill, the page cache included."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        machine = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0
    with suppress(OSError, ValueError, KeyError):  # no limit, or not one of cgroups' second version
        limit, used = (int((CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return min(machine, max(0, limit - used + int(counts["file"])))
    return machine


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
