"""What runs in processes of its own for ``benchmarks.dataset``: opening a packed set, and being a loader process."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import private_dirty, private_memory

if TYPE_CHECKING:
    from ramflow.data.dataset import Dataset

READS = 1000


def open_and_read(directory: str) -> dict[str, float]:
    """Open a packed set and read a sample in its middle: seconds of imports, of that, and of its captions' text."""
    start = time.perf_counter()
    import polars as pl

    from ramflow.data.dataset import Dataset

    imported = time.perf_counter()
    dataset = Dataset(Path(directory))
    sample = len(dataset) // 2
    assert dataset.image(sample)
    _read(dataset, sample)
    read = time.perf_counter()
    result = {"records": len(dataset), "imports": imported - start, "seconds": read - imported}
    assert dataset.scan().filter(pl.col("sample") == sample).select("captions").collect().item().len()
    return result | {"captions": time.perf_counter() - read}


def further_process(directory: str) -> dict[str, float]:
    """Private bytes that opening a set and reading 1,000 random records adds to a spawned process.

    This process has read the index as other loader processes have, so that its pages are shared, as they are then.
    """
    from ramflow.data.dataset import Dataset

    dataset = Dataset(Path(directory))
    for sample in range(0, len(dataset), 50):  # a page of the index holds more than that
        _read(dataset, sample)
        if sample % 500 == 0:
            dataset.image(sample)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_loader_process, args=(there, pickle.dumps(dataset)))
    process.start()
    before, after, dirty = here.recv()
    process.join()
    return {"bytes": after - before, "dirty": dirty, "before": before}


def _loader_process(pipe: Connection, pickled: bytes) -> None:
    import ramflow.data.dataset  # noqa: F401  # imports are not what is measured

    before, dirty = private_memory(), private_dirty()
    dataset = pickle.loads(pickled)
    for sample in random.Random(1).sample(range(len(dataset)), min(READS, len(dataset))):
        assert dataset.image(sample)
        _read(dataset, sample)
    pipe.send((before, private_memory(), private_dirty() - dirty))


def _read(dataset: Dataset, sample: int) -> None:
    dataset.union_tags(sample)
    dataset.usable_captions(sample)
