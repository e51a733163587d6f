"""Batches through the real loader: the same for any number of ranks and processes, whole, and honest about faults."""

import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import dataloader

from ramflow.data.cache import ShardCache
from ramflow.data.dataset import Dataset
from ramflow.data.order import Order
from ramflow.data.remote import fetch_dataset_tables
from ramflow.data.vectors import CaptionVectors
from ramflow.errors import UserError
from ramflow.settings import TrainSettings
from ramflow.storage import publish
from ramflow.train.samples import Batch, Requests, TrainingSamples, batches
from ramflow.train.stage import check_cache
from tests.train import artifacts

BATCH, EPOCHS = 5, 2  # of 12 samples: batches of 5, 5 and 2


class Run:
    """A training set and the settings of a run."""

    def __init__(self, data: Path, embed: str, size: int = 32, teacher_size: int = 32, **changes) -> None:
        self.dataset = Dataset(data)
        self.settings = artifacts.settings(**{"batch": BATCH, "epochs": EPOCHS, "shuffle_shards": 3, **changes})
        self.samples = TrainingSamples(self.dataset, CaptionVectors(Path(embed)), size, teacher_size, self.settings)
        shards = [shard.range for shard in self.dataset.shards]
        usable = np.arange(len(self.dataset.splits["train"]))
        self.order = Order(usable, shards, self.settings.seed, self.dataset.digest, self.settings.shuffle_shards)

    def batches(self, *place: int) -> list[Batch]:
        """Batches from ``start``, of ``rank``, of ``world``."""
        return list(batches(self.samples, self.order, self.settings, *place))


@pytest.fixture
def run(inputs):
    """``run(**changes)`` of settings."""
    return lambda **changes: Run(Path(inputs["data"]), inputs["embed"], **changes)


@cache
def whole(data: str, embed: str) -> list[Batch]:
    """All batches of a run, read in one process."""
    return Run(Path(data), embed).batches()


def content(batch: Batch) -> list[bytes]:
    """Every sample of a batch with all that is known of it."""
    tensors = (batch.samples, batch.pixels, batch.teacher_pixels, batch.targets, batch.captions, batch.caption_ids)
    return [b"".join(tensor[row].numpy().tobytes() for tensor in tensors) for row in range(len(batch.samples))]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_deliver_what_one_process_does_bit_for_bit(run, inputs, world, workers):
    one = [content(batch) for batch in whole(inputs["data"], inputs["embed"])]
    own = run(workers=workers)
    ranks = [[content(batch) for batch in own.batches(0, rank, world)] for rank in range(world)]
    assert [len(rank) for rank in ranks] == [len(one)] * world
    for step, expected in enumerate(one):
        together: list[bytes] = [b""] * len(expected)
        for rank in range(world):
            together[rank::world] = ranks[rank][step]
        assert together == expected


def test_every_sample_comes_once_an_epoch_and_the_last_batch_is_smaller(inputs):
    run = whole(inputs["data"], inputs["embed"])
    assert [len(batch.samples) for batch in run] == [5, 5, 2] * EPOCHS
    for epoch in range(EPOCHS):
        seen = [n for batch in run[3 * epoch : 3 * epoch + 3] for n in batch.samples.tolist()]
        assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 3, 5])
def test_from_any_step_on_the_batches_are_those_of_a_run_that_never_stopped(run, inputs, start, workers):
    rest = [content(batch) for batch in run(workers=workers).batches(start)]
    assert rest == [content(batch) for batch in whole(inputs["data"], inputs["embed"])[start:]]


def test_another_epoch_is_another_view_of_a_sample(inputs):
    run = whole(inputs["data"], inputs["embed"])
    views: dict[int, set[bytes]] = {}
    for batch in run:
        for sample, pixels in zip(batch.samples.tolist(), batch.pixels, strict=True):
            views.setdefault(sample, set()).add(pixels.numpy().tobytes())
    assert all(len(own) == EPOCHS for own in views.values())


def test_targets_and_captions_are_those_of_the_sample(run, inputs):
    own, vectors = run(), CaptionVectors(Path(inputs["embed"]))
    for batch in own.batches():
        for row, sample in enumerate(batch.samples.tolist()):
            assert batch.targets[row].nonzero().flatten().tolist() == sorted(own.dataset.union_tags(sample).tolist())
            assert batch.caption_ids[row] and (batch.captions[row] == vectors.of(sample)).all(dim=1).any()


def test_a_blank_caption_is_never_drawn(records, pack_records, tmp_path):
    for record in records[:12]:
        record["caption"][0] = " \t"
    records[0]["caption"] = ["", " "]
    data = pack_records(records[:12])
    embed = artifacts.write_embed(tmp_path / "embed", Dataset(data))
    vectors = CaptionVectors(embed)
    for batch in Run(data, str(embed), epochs=3).batches():
        for row, sample in enumerate(batch.samples.tolist()):
            assert bool(batch.caption_ids[row]) == (sample != 0)
            expected = torch.zeros(vectors.width) if sample == 0 else vectors.of(sample)[1]
            assert torch.equal(batch.captions[row], expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_teacher_has_its_own_size_of_the_same_view(run, workers):
    for batch in run(size=64, teacher_size=32, workers=workers, seed=3).batches():
        assert batch.pixels.shape[1:] == (3, 64, 64) and batch.teacher_pixels.shape[1:] == (3, 32, 32)
        shrunk = torch.nn.functional.avg_pool2d(batch.pixels.float(), 2)
        assert (shrunk - batch.teacher_pixels.float()).abs().mean() < 4


@pytest.mark.parametrize("workers", [0, 1])
def test_views_of_equal_size_are_one_tensor(run, workers):
    assert all(batch.teacher_pixels is batch.pixels for batch in run(workers=workers).batches())


# What a process that reads holds.


def test_what_is_handed_to_a_process_does_not_grow_with_the_set(records, pack_records, tmp_path):
    sizes = []
    for times in (1, 40):
        many = [{**record, "caption": [f"{n} {text}" for text in record["caption"]]} for n in range(times)
                for record in records[:12]]  # fmt: skip
        data = pack_records(many, shard_bytes=1 << 30)
        embed = artifacts.write_embed(tmp_path / f"embed-{times}", Dataset(data))
        sizes.append(len(pickle.dumps(Run(data, str(embed)).samples)))
    assert sizes[1] - sizes[0] < 100 and sizes[1] < 4000


# Faults.


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_left_out_and_the_others_stay_as_they_are(inputs, copy_of, workers):
    damaged = Run(copy_of(Path(inputs["data"])), inputs["embed"], workers=workers)
    artifacts.damage(damaged.dataset, 4)
    for batch, before in zip(damaged.batches(), whole(inputs["data"], inputs["embed"]), strict=True):
        numbers = before.samples.tolist()
        if 4 not in numbers:
            assert content(batch) == content(before) and not batch.skipped
            continue
        expected = content(before)
        del expected[numbers.index(4)]
        assert content(batch) == expected
        assert [skipped.sample for skipped in batch.skipped] == [4]
        assert batch.skipped[0].reason


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_any_readable_image_is_empty(inputs, copy_of, workers):
    damaged = Run(copy_of(Path(inputs["data"])), inputs["embed"], workers=workers)
    for sample in range(12):
        artifacts.damage(damaged.dataset, sample)
    for batch in damaged.batches():
        assert len(batch.samples) == len(batch.pixels) == len(batch.teacher_pixels) == len(batch.targets) == 0
        assert len(batch.skipped) in (5, 2)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("fault", "words"), [("gone", "is gone"), ("cut", "is cut off")])
def test_a_shard_that_is_lost_under_the_loader_is_one_line(inputs, copy_of, fault, words, workers):
    own = Run(copy_of(Path(inputs["data"])), inputs["embed"], workers=workers, batch=2, shuffle_shards=1)
    running = batches(own.samples, own.order, own.settings)
    next(running)
    last = own.dataset.directory / own.dataset.shard_of(int(own.order.at(0, 11, 12)[0])).name
    if fault == "gone":
        last.unlink()
    else:
        os.truncate(last, 512)
    with pytest.raises(UserError, match=f"{re.escape(last.name)} {words}") as caught:
        list(running)
    assert len(str(caught.value).splitlines()) == 1


def test_a_process_that_is_killed_is_one_line(run, monkeypatch):
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    own = run(workers=1, epochs=1000)
    running = batches(own.samples, own.order, own.settings)
    next(running)
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="a process that reads images was ended") as caught:
        list(running)
    assert len(str(caught.value).splitlines()) == 1


# A trainer in a process of its own.

PROGRAM = """
import hashlib, multiprocessing, sys
from pathlib import Path
import numpy as np
from ramflow.data.dataset import Dataset
from ramflow.data.order import Order
from ramflow.data.vectors import CaptionVectors
from ramflow.settings import TrainSettings
from ramflow.train.samples import TrainingSamples, batches
dataset, settings = Dataset(Path(sys.argv[1])), TrainSettings.model_validate_json(sys.argv[3])
samples = TrainingSamples(dataset, CaptionVectors(Path(sys.argv[2])), 32, 32, settings)
order = Order(np.arange(12), [shard.range for shard in dataset.shards], settings.seed, dataset.digest, 3)
running = batches(samples, order, settings)
"""
PRINT = "print([hashlib.sha256(batch.pixels.numpy().tobytes()).hexdigest() for batch in running])"
STAND = "next(running); print(multiprocessing.active_children()[0].pid, flush=True); input()"


def trainer(program: str, data: Path, embed: str, settings: TrainSettings) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM + program, str(data), embed, settings.model_dump_json()]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_trainer_that_is_killed_leaves_no_process_behind(inputs, run):
    process = trainer(STAND, Path(inputs["data"]), inputs["embed"], run(workers=1, epochs=1000).settings)
    worker = int(process.stdout.readline())
    assert alive(worker)
    process.kill()
    process.wait()
    for _ in range(1000):
        if not alive(worker):
            return
        time.sleep(0.03)
    pytest.fail("it still reads for a trainer that is gone")


# Shards that come through a cache.


def test_shards_of_this_window_and_the_next_are_fetched_ahead(run, monkeypatch):
    """A window is five samples or so: one shard."""
    own, asked = run(batch=2, shuffle_shards=1), []
    cache = ShardCache("s3://bucket/set", own.dataset.info["files"])
    monkeypatch.setattr(cache, "prefetch", asked.append)
    own.dataset.cache = cache
    names = [[own.dataset.shards[shard].name for shards in own.order.epoch(epoch).windows for shard in shards]
             for epoch in range(EPOCHS)]  # fmt: skip
    requests = iter(Requests(own.order, own.dataset, own.settings, 0))
    next(requests)
    assert asked == [names[0][:2]]
    list(requests)
    order = [name for epoch in names for name in epoch]
    assert asked == [order[n : n + 2] for n in range(len(order))]


def test_a_cache_that_would_fetch_shards_over_and_over_is_refused(run):
    own = run(shuffle_shards=1)
    largest = max(shard.bytes for shard in own.dataset.shards)
    for room, refused in ((2 * largest, False), (2 * largest - 1, True)):
        own.dataset.cache = ShardCache("s3://bucket/set", own.dataset.info["files"], max_bytes=room)
        if refused:
            with pytest.raises(UserError, match=r"two windows of 1 shards take .* set RAMFLOW_CACHE_GB higher"):
                check_cache(own.dataset, own.settings)
        else:
            check_cache(own.dataset, own.settings)


def test_a_run_reads_shards_of_a_bucket_once(inputs, run, faults, bucket, tmp_path, monkeypatch):
    publish(Path(inputs["data"]), f"s3://{bucket}/set", last="dataset.json")
    monkeypatch.setenv("RAMFLOW_CACHE", str(tmp_path / "cache"))
    tables = fetch_dataset_tables(f"s3://{bucket}/set", tmp_path / "tables")
    said, _ = trainer(PRINT, tables, inputs["embed"], run(workers=1).settings).communicate()
    expected = [batch.pixels.numpy().tobytes() for batch in whole(inputs["data"], inputs["embed"])]
    assert said.strip() == str([hashlib.sha256(pixels).hexdigest() for pixels in expected])
    train = [shard.name for shard in Dataset(tables).shards if shard.split == "train"]
    assert [faults.count(name) for name in train] == [1] * len(train)
