"""A function over many items in several processes: results in order, Ctrl-C clean, no process left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from typing import TypeVar

from ramflow.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 32
CHUNKS_AHEAD = 4
POLARS_THREADS = "POLARS_MAX_THREADS"

_stop: Event | None = None


class Stopped(Exception):
    """Raised in a worker process whose results nobody waits for any more."""


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], workers: int, *, chunk: int = CHUNK
) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in their order, from ``workers`` processes (1: from this one).

    ``function`` and the items are pickled, ``chunk`` items at a time; take 1 where an item is a lot of work. At most
    ``CHUNKS_AHEAD`` chunks a process are in memory. polars has one thread in a worker process, unless
    ``POLARS_MAX_THREADS`` says otherwise.

    Raises:
        UserError: a process died, which on a machine short of memory is the kernel's doing.
    """
    if workers == 1:
        yield from map(function, items)
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(stop,))
    waiting: deque[Future[list[R]]] = deque()
    iterator = iter(items)
    try:
        while taken := list(islice(iterator, chunk)):
            with _interrupts_held(), _one_thread_each():
                waiting.append(pool.submit(_apply, function, taken))
            if len(waiting) >= CHUNKS_AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(f"one of {workers} worker processes was killed, often for want of memory: use fewer") from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def check_stopped() -> None:
    """For work that takes long: raises :class:`Stopped` when this worker's results are not waited for any more."""
    if _stop is not None and _stop.is_set():
        raise Stopped


def _apply(function: Callable[[T], R], chunk: list[T]) -> list[R]:
    return [function(item) for item in chunk]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which a terminal sends to all: this one obeys it and ends them.

    It obeys at the end of the block, so that no process is left half started. (The mask is what they inherit; it
    does not hold the signal back here, where other threads take it.)
    """
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside have one thread of polars each; it reads the variable when it is imported."""
    given = os.environ.get(POLARS_THREADS)
    os.environ[POLARS_THREADS] = given or "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[POLARS_THREADS]


def _begin(stop: Event) -> None:
    """Set up a worker process. Without the thread it would wait for ever when its parent is killed."""
    global _stop
    _stop = stop
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
