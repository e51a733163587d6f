"""The image audit of a worker process against the bare decoder it uses, and against itself in two processes."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_function
from benchmarks.pictures import QUALITY, photo
from ramflow.audit.images import Row, inspect
from ramflow.settings import AuditSettings

PICTURES = 200
"""At full size; a fifth of a second each to make."""
QUALITIES = {QUALITY: "as COCO's", 75: "Pillow's default", 65: "smaller still"}
"""JPEG quality, and what bytes a pixel that makes."""
ROUNDS = 5
"""At the least: a round takes half a second."""
AGAINST = "PIL open and load"

TURN = 5
"""Images that one side takes before it is the other's turn: so both have the same disturbances."""

Sample = tuple[bytes, Row]
Work = Callable[[list[Sample]], None]


def run(options: Options) -> list[Figure]:
    """Images a second of both, in turns in one process; then of one and of two processes, in turns."""
    rounds = max(ROUNDS, options.rounds)
    figures = []
    for quality, kind in QUALITIES.items():
        samples = _samples(options, quality)
        of = f"of JPEGs of {_bytes_a_pixel(samples):.2f} byte a pixel, {kind}"
        done = run_function("benchmarks.image_audit:in_turns", str(samples), rounds, threads=1).result
        figures.append(
            Figure(f"image_audit.{quality}", f"image audit {of}", "images/s and core", done["audit"], done["bare"],
                   AGAINST, higher_is_better=True, at_least=0.8)
        )  # fmt: skip
    works = {"audit": inspect_all, "bare": decode_all}
    (one, two), bare = in_processes(_samples(options, QUALITY), rounds, works).values()
    gain = median(b / a for a, b in zip(*bare, strict=True))
    figures.append(
        Figure("image_audit.processes", "image audit in two processes", "images/s", two, one, "one process",
               higher_is_better=True, at_least=1.8, note=f"the bare decoder gains {gain:.2f} times")
    )  # fmt: skip
    return figures


def in_turns(samples: str, rounds: int) -> dict[str, list[float]]:
    """Images a second of processor time of the bare decoder and of the audit, a value a round."""
    loaded = _read(samples)
    turns: dict[str, Work] = {"bare": decode_all, "audit": inspect_all}
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        seconds = dict.fromkeys(turns, 0.0)
        for first in range(0, len(loaded), TURN):
            for name in turns if first % (2 * TURN) else reversed(turns):
                seconds[name] += _seconds(turns[name], loaded[first : first + TURN], time.process_time)
        if number:  # the first round warms up
            for name, kept in rates.items():
                kept.append(len(loaded) / seconds[name])
    return rates


def in_processes(samples: Path, rounds: int, works: Mapping[str, Work]) -> dict[str, tuple[list[float], list[float]]]:
    """For every work, images a second of one and of two processes that do it at the same time, a value a round."""
    context = get_context("spawn")
    count = len(_read(str(samples)))
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in works}
    pools = [
        ProcessPoolExecutor(n, context, initializer=_begin, initargs=(str(samples), context.Barrier(n))) for n in (1, 2)
    ]
    for number in range(rounds + 1):
        for name, work in works.items():
            for n, (pool, kept) in enumerate(zip(pools, rates[name], strict=True), 1):
                seconds = list(pool.map(_round, [work] * n))
                if number:  # the first round warms up
                    kept.append(sum(count / s for s in seconds))
    for pool in pools:
        pool.shutdown()
    return rates


def decode_all(samples: list[Sample]) -> None:
    """The bare decoder: every pixel, and nothing else."""
    for data, _ in samples:
        Image.open(BytesIO(data)).load()


def inspect_all(samples: list[Sample]) -> None:
    """The audit of every sample."""
    settings = AuditSettings()
    for data, row in samples:
        looked = inspect(data, row, settings)
        assert not looked.faults, looked


_state: dict[str, Any] = {}


def _begin(samples: str, barrier: Barrier) -> None:
    _state.update(samples=_read(samples), barrier=barrier)


def _round(work: Work) -> float:
    _state["barrier"].wait()  # both processes take one task each and begin together
    return _seconds(work, _state["samples"], time.perf_counter)


def _seconds(work: Work, samples: list[Sample], clock: Callable[[], float]) -> float:
    start = clock()
    work(samples)
    return clock() - start


def _samples(options: Options, quality: int) -> Path:
    """A file of photographs as JPEGs and their rows, the same every time."""
    count = max(6, round(PICTURES * options.scale))
    path = options.work / f"photos-{count}-{quality}.pickle"
    if not path.exists():
        samples = []
        for number in range(count):
            buffer = BytesIO()
            photo(number).save(buffer, "JPEG", quality=quality)
            data = buffer.getvalue()
            samples.append((data, Row(f"photos/{number}.jpg", len(data), hashlib.sha256(data).hexdigest())))
        path.write_bytes(pickle.dumps(samples))
    return path


def _read(samples: str) -> list[Sample]:
    return pickle.loads(Path(samples).read_bytes())


def _bytes_a_pixel(samples: Path) -> float:
    loaded = _read(str(samples))
    sizes = [Image.open(BytesIO(data)).size for data, _ in loaded]
    return sum(len(data) for data, _ in loaded) / sum(width * height for width, height in sizes)
