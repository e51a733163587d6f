"""How fast a run goes and what memory it takes, on this process; for the logs, never for an artifact."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class Speed:
    """Seconds, steps and waits since the last row."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._micro_batch = 0
        self._begin()

    def waiting(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each is there counts as waiting for data."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield item

    def step(self, micro_batch: int) -> None:
        """A step was begun, in micro-batches of so many images."""
        self._steps += 1
        self._micro_batch = micro_batch

    def since_last(self, batch: int) -> dict[str, float]:
        """Images a second over all processes, the share of time spent waiting for data, seconds a step, peak memory."""
        seconds = time.perf_counter() - self._start
        steps, waited = max(1, self._steps), self._waited
        self._begin()
        cuda = self._device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self._device) if cuda else _resident()
        return {
            "images_per_second": batch * steps / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait": waited / seconds,
            "memory_gib": memory / 2**30,
            "micro_batch": self._micro_batch,
        }

    def _begin(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0


def _resident() -> int:
    """The most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
