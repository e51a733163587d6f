"""Training samples: what a batch holds, and the processes that read and decode it."""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault
from ramflow.data.order import Order, Request
from ramflow.data.vectors import CaptionVectors
from ramflow.errors import UserError
from ramflow.settings import TrainSettings
from ramflow.train.augment import draw, generator, views
from ramflow.train.decode import decode_pixels

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT, MOST_KEPT = 2 << 20, 8 << 20
"""Bytes: the largest piece of memory that a process keeps for the next image, and how much of it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """A sample whose image cannot be decoded, and why."""

    sample: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """Images of a step and what is known of them; smaller by those that cannot be decoded, and even empty."""

    samples: torch.Tensor
    """int64 [batch], their numbers."""
    pixels: torch.Tensor
    """uint8 [batch, 3, size, size], augmented."""
    teacher_pixels: torch.Tensor
    """The same views at the teacher's size; the same tensor where the sizes are equal."""
    targets: torch.Tensor
    """Bool [batch, tags]."""
    captions: torch.Tensor
    """Vector of one caption an image [batch, width]; zeros where there is none."""
    caption_ids: torch.Tensor
    """int64 [batch]: equal for equal vectors, whatever the process; 0 where there is none."""
    skipped: list[Skipped] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; DataLoader calls it."""
        return self.mapped(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same with every tensor changed; views that are one tensor stay one."""
        pixels = change(self.pixels)
        teacher = pixels if self.teacher_pixels is self.pixels else change(self.teacher_pixels)
        targets, captions, caption_ids = map(change, (self.targets, self.captions, self.caption_ids))
        return Batch(change(self.samples), pixels, teacher, targets, captions, caption_ids, self.skipped)


class TrainingSamples(TorchDataset[Batch | UserError]):
    """Batches by request: an image's view is a function of (seed, epoch, sample) and nothing else.

    Handed to worker processes: it holds nothing of the size of the set.
    """

    def __init__(
        self, dataset: Dataset, captions: CaptionVectors, size: int, teacher_size: int, settings: TrainSettings
    ) -> None:
        """Read from ``dataset``, at ``size`` and ``teacher_size`` pixels."""
        self.dataset = dataset
        self.captions = captions
        self.sizes = (size, teacher_size)
        self.seed, self.augment = settings.seed, settings.augment
        self.tags = len(dataset.tags)

    def __getitem__(self, request: Request) -> Batch | UserError:
        """The batch; an error of the user's is returned, because raised in another process it is no longer one line."""
        try:
            return self._read(request)
        except UserError as error:
            return error

    def blank(self, images: int) -> Batch:
        """Images of zeros without tags and captions, as large as others."""
        return self._empty(images).mapped(torch.zeros_like)

    def _read(self, request: Request) -> Batch:
        batch = self._empty(len(request.samples))
        row = 0
        for sample in request.samples.tolist():
            try:
                pixels = decode_pixels(self.dataset.image(sample))
            except ImageFault as fault:
                batch.skipped.append(Skipped(sample, str(fault)))
                continue
            random = generator(self.seed, request.epoch, sample)
            plan = draw(pixels.shape[1], pixels.shape[0], self.augment, random)
            own = views(pixels, plan, self.sizes)
            batch.samples[row] = sample
            batch.pixels[row], batch.teacher_pixels[row] = own[0], own[-1]
            batch.targets[row, self.dataset.union_tags(sample)] = True
            self._draw_caption(batch, row, sample, random)
            row += 1
        return batch.mapped(lambda tensor: tensor[:row]) if batch.skipped else batch

    def _empty(self, images: int) -> Batch:
        size, teacher_size = self.sizes
        pixels = torch.empty(images, 3, size, size, dtype=torch.uint8)
        empty = Batch(
            samples=torch.empty(images, dtype=torch.int64),
            pixels=pixels,
            teacher_pixels=pixels if teacher_size == size else pixels.new_empty(images, 3, teacher_size, teacher_size),
            targets=torch.zeros(images, self.tags, dtype=torch.bool),
            captions=torch.zeros(images, self.captions.width),
            caption_ids=torch.zeros(images, dtype=torch.int64),
        )
        return empty.mapped(torch.Tensor.share_memory_) if get_worker_info() else empty

    def _draw_caption(self, batch: Batch, row: int, sample: int, random: np.random.Generator) -> None:
        usable = self.dataset.usable_captions(sample)
        if len(usable):
            vector = self.captions.of(sample)[int(usable[random.integers(len(usable))])]
            batch.captions[row], batch.caption_ids[row] = vector, caption_id(vector)


def caption_id(vector: torch.Tensor) -> int:
    """A number for a caption's vector [width], never 0: equal vectors have equal ones, different ones do not.

    64 bits of BLAKE2: two of a million captions share one with a chance of 3e-8.
    """
    digest = hashlib.blake2b(vector.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


class Requests(Sampler[Request]):
    """The requests of one rank from step ``start`` on, made one by one.

    The shards of a window and of the one after it are brought nearer in the background.
    """

    def __init__(
        self, order: Order, dataset: Dataset, settings: TrainSettings, start: int, rank: int = 0, world: int = 1
    ) -> None:
        """See :meth:`Order.batches`."""
        self.order = order
        self.dataset = dataset
        self.epochs = settings.epochs
        self.requests = order.batches(settings.batch, settings.epochs, start, rank, world)

    def __iter__(self) -> Iterator[Request]:
        """Once only."""
        before: tuple[int, int] | None = None
        for request in self.requests:
            window = request.epoch, self.order.epoch(request.epoch).window_at(request.position)
            if window != before:
                self.dataset.prefetch(self._shards(*window))
            before = window
            yield request

    def _shards(self, epoch: int, window: int) -> list[str]:
        """Names of the shards of a window and of the one after it."""
        windows = self.order.epoch(epoch).windows[window : window + 2]
        if len(windows) < 2 and epoch + 1 < self.epochs:
            windows += self.order.epoch(epoch + 1).windows[:1]
        return [self.dataset.shards[shard].name for shards in windows for shard in shards]


def batches(
    samples: TrainingSamples, order: Order, settings: TrainSettings, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The batches of the run from step ``start`` on, read by ``settings.workers`` processes.

    Raises:
        UserError: a shard is gone or cut off, or a process that reads was ended from outside.
    """
    loader: DataLoader[Batch | UserError] = DataLoader(
        samples,
        sampler=Requests(order, samples.dataset, settings, start, rank, world),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=settings.workers,
        multiprocessing_context=_fork_server() if settings.workers else None,
        worker_init_fn=_prepare_process,
        pin_memory=torch.cuda.is_available(),
    )
    items = iter(loader)
    try:
        for item in items:
            if isinstance(item, UserError):
                raise item
            yield item
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        bug = why.startswith("Caught ") or (isinstance(error, RuntimeError) and "DataLoader worker" not in why)
        if bug or not settings.workers:
            raise
        _end_the_others(items)
        raise UserError(
            f"train: a process that reads images was ended from outside ({why}): "
            "memory or /dev/shm may be short, lower train.workers or train.batch"
        ) from None
    finally:
        del items  # its processes end here, not when the last error that holds this frame is forgotten


def _fork_server() -> BaseContext:
    """Processes begin as copies of a small one that has imported what they need and holds no thread, lock or GPU."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ramflow.train.preload"])
    return context


def _end_the_others(items: Any) -> None:
    """End the processes that are left; torch would ask them to, and wait for a lock that the dead one may hold."""
    for process in items._workers:
        process.kill()
    items._workers_done_event = threading.Event()


def _as_it_is(item: T) -> T:
    return item


def _prepare_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are the trainer's
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    keep_memory()


def _end_with_the_trainer() -> None:
    """A trainer that is killed cannot say so, and this process is a child of the fork server, which waits for it."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)


def keep_memory() -> None:
    """Let this process keep the memory of an image for the next one, up to ``MOST_KEPT``.

    glibc by itself gives it back, which at two sizes costs a sixth of the time, or lets the heap grow.
    """
    with suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
