"""Lock files between processes and threads: the kernel frees a lock when its holder dies, so none is ever stale."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramflow.errors import UserError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, which is made where it is not there and stays.

    Raises:
        UserError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        lock(file.fileno(), path)
        try:
            yield
        finally:
            unlock(file.fileno())


def lock(descriptor: int, path: Path, *, wait: bool = True) -> bool:
    """Lock an open file; False if another holder has it and ``wait`` is not.

    Raises:
        UserError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(f"{path}: no file locks here ({error.strerror}): set RAMFLOW_CACHE to a local disk") from None
    return True


def unlock(descriptor: int) -> None:
    """Free a lock, also for a child process that was forked meanwhile and holds the same open file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
