"""Which sample comes when: a pure function of (seed, epoch, position) and of the dataset, whoever asks.

Shards are put in random order, cut into windows of a few shards, and the samples of a window are shuffled: reads stay
near one another, and a cache of shards needs room for two windows. Every sample comes exactly once an epoch (F29), and
any position can be asked for without the ones before it, so a run goes on from one integer, its step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]

SHARDS, WINDOW = 0, 1
"""Which of the random streams of an epoch: the one of its shards, or the one of the samples of a window."""


@dataclass(frozen=True)
class Epoch:
    """The shards of an epoch in their order, and the windows that they are cut into."""

    windows: list[npt.NDArray[np.intp]]
    """Numbers of the shards of each window."""
    starts: npt.NDArray[np.int64]
    """Position of the first sample of each window, and the length of the epoch [windows + 1]."""

    def window_at(self, position: int) -> int:
        """Number of the window that holds a position."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1


@dataclass(frozen=True)
class Request:
    """What one rank reads for one step: numbers of the samples, and where in the epoch the step's batch starts."""

    epoch: int
    position: int
    samples: Samples


class Order:
    """The order of some samples of a packed dataset, in every epoch."""

    def __init__(self, samples: Samples, shards: Sequence[range], seed: int, digest: str, window: int) -> None:
        """Order ``samples``.

        Args:
            samples: their numbers, rising [samples].
            shards: numbers of all samples of each shard, in order; those that hold none of ``samples`` do no harm.
            seed: another seed, another order.
            digest: ``Dataset.digest``: another dataset, another order.
            window: shards whose samples are mixed.
        """
        smallest = np.int32 if not len(samples) or samples[-1] <= np.iinfo(np.int32).max else np.int64
        self._samples = samples.astype(smallest)
        edges = np.searchsorted(samples, [place for shard in shards for place in (shard.start, shard.stop)])
        self._first, self._end = edges[0::2], edges[1::2]
        self._filled = np.flatnonzero(self._end > self._first)
        assert int((self._end - self._first).sum()) == len(samples), "samples outside the shards"
        self._seed, self._digest, self._window = seed, int(digest.removeprefix("sha256:"), 16), window
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._mixed = lru_cache(maxsize=2)(self._draw_window)

    def __len__(self) -> int:
        """Samples an epoch."""
        return len(self._samples)

    def steps(self, batch: int) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self) // batch)

    def epoch(self, number: int) -> Epoch:
        """Shards and windows of an epoch."""
        return self._epoch(number)

    def at(self, epoch: int, start: int, end: int) -> Samples:
        """Numbers of the samples at positions ``start`` to ``end`` of an epoch, fewer where the epoch ends before."""
        starts = self._epoch(epoch).starts
        end = min(end, len(self))
        parts, position = [np.zeros(0, np.int64)], start
        while position < end:
            window = self._epoch(epoch).window_at(position)
            stop = min(end, int(starts[window + 1]))
            parts.append(self._mixed(epoch, window)[position - starts[window] : stop - starts[window]])
            position = stop
        return np.concatenate(parts)

    def batches(self, batch: int, epochs: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Request]:
        """The batches of a run from step ``start`` (from 0) on, one by one.

        Args:
            batch: samples a step, over all ranks.
            epochs: of the whole run.
            start: steps already done.
            rank: takes every ``world``-th sample of a batch from its ``rank``-th on; may be none of a small last one.
            world: processes that share a batch.
        """
        steps = self.steps(batch)
        for step in range(start, epochs * steps):
            epoch, place = divmod(step, steps)
            yield Request(epoch, place * batch, self.at(epoch, place * batch, (place + 1) * batch)[rank::world])

    def seen(self, steps: int, batch: int) -> int:
        """Samples of the first ``steps`` steps of a run, over all ranks."""
        epochs, place = divmod(steps, self.steps(batch))
        return epochs * len(self) + place * batch

    def _random(self, *entropy: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, self._digest, *entropy])))

    def _draw_epoch(self, epoch: int) -> Epoch:
        shards = self._filled[self._random(SHARDS, epoch).permutation(len(self._filled))]
        windows = [shards[i : i + self._window] for i in range(0, len(shards), self._window)]
        lengths = [int((self._end[w] - self._first[w]).sum()) for w in windows]
        return Epoch(windows, np.cumsum([0, *lengths], dtype=np.int64))

    def _draw_window(self, epoch: int, window: int) -> Samples:
        shards = self._epoch(epoch).windows[window]
        samples = np.concatenate([self._samples[self._first[s] : self._end[s]] for s in shards]).astype(np.int64)
        return self._random(WINDOW, epoch, window).permutation(samples)
