"""Training samples a second and core, decoded and augmented: ours against upstream's transform, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_function
from benchmarks.pictures import photo_jpeg

PICTURES = 256
SIZES = {"one_size": (224,), "two_sizes": (384, 224)}
"""Of the student; of the student and of the teacher, where upstream decodes and augments twice."""
SIDES = ("ours", "upstream")
TARGETS = {"one_size": 1.5, "two_sizes": 2.5}

Sample = Callable[[bytes, int], object]
"""From the bytes of a picture and its number to what a loader process hands on."""


def run(options: Options) -> list[Figure]:
    """Pictures a processor second, for one size and for two."""
    folder = pictures(options.work, max(16, round(PICTURES * min(options.scale, 1))))
    measured: dict[str, dict[str, list[float]]] = {name: {side: [] for side in SIDES} for name in SIZES}
    for epoch in range(options.rounds):
        for side in SIDES:
            result = run_function("benchmarks.loader:rates", str(folder), side, epoch, threads=1).result
            for name, rate in result.items():
                measured[name][side].append(rate)
    return [
        Figure(f"loader.{name}", f"training images at {' and '.join(map(str, sizes))} px, decoded and augmented",
               "a second and core", measured[name]["ours"], measured[name]["upstream"], "upstream's transform", True,
               at_least=TARGETS[name])
        for name, sizes in SIZES.items()
    ]  # fmt: skip


def pictures(work: Path, count: int) -> Path:
    """A folder of generated photographs, made when it is not there yet."""
    folder = work / f"pictures-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        if not path.is_file():
            path.write_bytes(photo_jpeg(number))
    return folder


def rates(folder: str, side: str, epoch: int) -> dict[str, float]:
    """Samples a second of this process's processor time by figure; the files are read beforehand.

    A process for each side, as loader processes are: the memory that one sets aside is no help to the other.
    """
    import torch

    torch.set_num_threads(1)
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    result = {}
    for name, sizes in SIZES.items():
        sample = {"ours": ours, "upstream": upstream}[side](sizes)
        _seconds(sample, files)
        result[name] = len(files) / _seconds(sample, files, (epoch + 1) * len(files))
    return result


def _seconds(sample: Sample, files: list[bytes], first: int = 0) -> float:
    start = time.process_time()
    for number, data in enumerate(files, first):
        sample(data, number)
    return time.process_time() - start


def ours(sizes: Sequence[int]) -> Sample:
    """What a loader process of ramflow does with the bytes of a picture."""
    from ramflow.settings import AugmentSettings
    from ramflow.train.augment import draw, generator, views
    from ramflow.train.decode import decode_pixels
    from ramflow.train.samples import keep_memory

    keep_memory()
    settings = AugmentSettings()

    def sample(data: bytes, number: int) -> object:
        pixels = decode_pixels(data)
        height, width, _ = pixels.shape
        return views(pixels, draw(width, height, settings, generator(0, 0, number)), sizes)

    return sample


def upstream(sizes: Sequence[int]) -> Sample:
    """What a loader process of upstream does: for two sizes it decodes twice."""
    import cv2

    from benchmarks.upstream import decode, transform

    cv2.setNumThreads(1)
    transforms = [transform(size) for size in sizes]
    return lambda data, number: [transform(decode(data)) for transform in transforms]
