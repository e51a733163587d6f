"""Pictures from a disk whose cache is cold: shards in the loader's order against plain files in random order."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_command, run_function

PICTURES = 24_000
PICTURE_BYTES = (40_000, 160_000)
FOLDERS = 100
DROP_ALL = Path("/proc/sys/vm/drop_caches")


def run(options: Options) -> list[Figure]:
    """Megabytes a second of one process, by either way."""
    count = max(200, round(PICTURES * options.scale))
    folder = options.work / f"cold-{count}"
    plain, data = folder / "images", folder / "data"
    if not (data / "dataset.json").is_file():
        _make(folder, count)
    everything = options.scale >= 0.1
    rates: dict[str, list[float]] = {"read_shards": [], "read_plain": []}
    for number in range(options.rounds):
        for name, place in (("read_shards", data), ("read_plain", plain)):
            _make_cold(folder, everything)
            rates[name].append(run_function(f"benchmarks.cold_disk:{name}", str(place), number).result["rate"])
    what = f"reading {count:,} pictures of 100 kB from a cold disk"
    return [Figure("cold_disk.read", what, "MB/s", rates["read_shards"], rates["read_plain"],
                   "plain files in random order", True, at_least=4.0, note=_disk(folder))]  # fmt: skip


def read_plain(folder: str, epoch: int) -> dict[str, float]:
    """Read every file once in random order, as a loader of plain files does."""
    paths = [str(path) for path in sorted(Path(folder).glob("*/*.jpg"))]
    order = np.random.default_rng((0, epoch)).permutation(len(paths))
    start = time.perf_counter()
    size = 0
    for number in order:
        with open(paths[number], "rb") as file:
            size += len(file.read())
    return {"rate": size / 1e6 / (time.perf_counter() - start)}


def read_shards(directory: str, epoch: int) -> dict[str, float]:
    """Read every sample once as the loader asks for them in an epoch, with its read-ahead."""
    from ramflow.data.dataset import Dataset
    from ramflow.data.order import Order
    from ramflow.settings import TrainSettings
    from ramflow.train.samples import Requests

    settings = TrainSettings(epochs=epoch + 1)
    start = time.perf_counter()
    dataset = Dataset(Path(directory))
    shards = [shard.range for shard in dataset.shards]
    order = Order(np.arange(len(dataset)), shards, 0, dataset.digest, settings.shuffle_shards)
    requests = Requests(order, dataset, settings, start=epoch * order.steps(settings.batch))
    size = sum(len(dataset.image(sample)) for request in requests for sample in request.samples.tolist())
    return {"rate": size / 1e6 / (time.perf_counter() - start)}


def _make(folder: Path, count: int) -> None:
    """Write the files, and pack them: bytes that do not compress, behind the first bytes of a JPEG file."""
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(5)
    noise = random.bytes(1 << 26)
    records = []
    for number in range(count):
        path = folder / "images" / f"{number % FOLDERS:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        start, size = int(random.integers(1 << 25)), int(random.integers(*PICTURE_BYTES))
        path.write_bytes(b"\xff\xd8\xff\xe0" + number.to_bytes(4, "big") + noise[start : start + size])
        records.append({"image_path": f"{path.parent.name}/{path.name}", "caption": ["a picture"],
                        "union_label_id": [0], "parse_label_id": [[0]]})  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(records), encoding="utf-8")
    (folder / "tags.txt").write_text("picture", encoding="utf-8")
    run_command([sys.executable, "-m", "ramflow.cli", "pack", "--annotations", str(folder / "annotations.json"),
                 "--images", str(folder / "images"), "--tags", str(folder / "tags.txt"),
                 "--out", str(folder / "data")])  # fmt: skip


def _make_cold(folder: Path, everything: bool) -> None:
    """Let the system forget the files; ``everything``: where allowed, also names and places of all files."""
    os.sync()
    if everything and os.access(DROP_ALL, os.W_OK):
        DROP_ALL.write_text("3")
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _disk(folder: Path) -> str:
    """The rate of one long read from the same cold disk."""
    path = max((folder / "data").glob("*.tar"), key=lambda p: p.stat().st_size)
    _make_cold(folder, everything=False)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
    return f"one long read of this disk: {path.stat().st_size / 1e6 / (time.perf_counter() - start):.0f} MB/s"
