"""The silent failures of what a training step sees, each planted as the public code has it, and its clean control.

Numbers are those of the list of ways a RAM++ run goes wrong without saying so.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ramflow.data.dataset import Dataset
from ramflow.data.order import Order
from ramflow.data.vectors import CaptionVectors
from ramflow.model.losses import Wanted, alignment_target, asymmetric_sum_and_gradient
from ramflow.model.preprocessing import Preprocessing, read_preprocessing
from ramflow.settings import AugmentSettings, EvaluateSettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.train import samples as reading
from ramflow.train.augment import OPERATIONS, draw, generator, random_crop, views
from ramflow.train.samples import Batch, TrainingSamples, batches
from ramflow.train.stage import Trainer
from ramflow.weights.attest import Attestation, EncoderIdentity, read_attestation
from tests.train import artifacts, engines

STAGE = {stage.name: stage for stage in STAGES}


class Loader:
    """The real loader of a packed set, without a trainer."""

    def __init__(self, data: Path, embed: Path, size: int = 32, teacher_size: int = 32, **changes) -> None:
        self.dataset = Dataset(data)
        self.settings = artifacts.settings(**changes)
        self.samples = TrainingSamples(self.dataset, CaptionVectors(embed), size, teacher_size, self.settings)
        usable, shards = np.arange(len(self.dataset.splits["train"])), [s.range for s in self.dataset.shards]
        self.order = Order(usable, shards, self.settings.seed, self.dataset.digest, self.settings.shuffle_shards)

    def batches(self, start: int = 0) -> list[Batch]:
        """Of the whole run from step ``start`` on."""
        return list(batches(self.samples, self.order, self.settings, start))


def content(batch: Batch) -> list[bytes]:
    """Every sample of a batch with its picture and its caption."""
    return [batch.samples[n].numpy().tobytes() + batch.pixels[n].numpy().tobytes() + batch.captions[n].numpy().tobytes()
            for n in range(len(batch.samples))]  # fmt: skip


# F14: the same caption on several images of a batch.


def pairs(batch: Batch) -> torch.Tensor:
    """Which captions of a batch are positives of which of its images."""
    valid = torch.ones(len(batch.samples), dtype=torch.bool)
    teacher = torch.zeros(len(batch.samples), batch.captions.shape[1])
    wanted = Wanted(batch.targets, teacher, valid, batch.caption_ids, batch.captions, batch.caption_ids)
    return alignment_target(wanted)


@pytest.mark.parametrize("shared", [True, False])
def test_f14_the_same_caption_on_two_images_is_right_for_both(records, pack_records, tmp_path, shared):
    for number, record in enumerate(records[:6]):
        record["caption"] = ["stock photo" if shared and number in (1, 4) else f"picture {number}"]
    data = pack_records(records[:6])
    embed = artifacts.write_embed(tmp_path / "embed", Dataset(data))
    (batch,) = Loader(data, embed, batch=6, epochs=1).batches()
    rows = {sample: row for row, sample in enumerate(batch.samples.tolist())}
    target, public = pairs(batch), torch.eye(6, dtype=torch.bool)
    same = (target.positive == public).all().item()
    assert same == (not shared)
    assert target.positive[rows[1], rows[4]].item() == target.positive[rows[4], rows[1]].item() == shared
    _, gradient = asymmetric_sum_and_gradient(torch.zeros(6, 6), target)
    drawn_together = gradient[rows[1], rows[4]].item() < 0
    assert drawn_together == shared


def test_f14_a_step_counts_every_image_of_a_caption_as_its_own():
    """A model that says yes with one logit to everything: the loss is a count of pairs."""
    batch, given = engines.batch(20), engines.settings(batch=20)
    engine = engines.engine(given)
    with torch.no_grad():
        engine.model.head.logit.weight.zero_()
        engine.model.head.logit.bias.fill_(2.0)
    loss = engine.step(batch, 0, 0.0, engines.OPEN, engines.WEIGHTS).read()["loss_alignment"]
    known = batch.caption_ids[batch.caption_ids != 0]
    right, all_pairs = int((known[:, None] == known).sum()), len(known) ** 2
    assert right > len(known)
    p, weight = 1 / (1 + math.exp(-2)), (given.balance.batch - 1) / (len(known) - 1)
    wrong = -((p - 0.05) ** 4) * math.log(1.05 - p) * weight
    assert loss == pytest.approx((right * -math.log(p) + (all_pairs - right) * wrong) / 20, rel=1e-5)


# F16: one normalisation for training, validation, scoring and use.


@pytest.fixture
def odd_verify(inputs, tmp_path) -> Path:
    """An encoder whose mean and deviation are neither CLIP's nor ImageNet's."""
    folder = artifacts.write_verify(tmp_path / "verify")
    old = read_attestation(folder)
    own = old.encoder
    odd = EncoderIdentity(own.name, own.options, own.image_size, own.width, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    Attestation(old.source, odd, old.ledger, old.tensors, old.probe).write(folder)
    return folder


def test_f16_training_and_scoring_normalise_with_what_the_encoder_is_attested_for(
    inputs, odd_verify, tmp_path, monkeypatch
):
    used: set[Preprocessing] = set()
    normalise = Preprocessing.normalise
    monkeypatch.setattr(Preprocessing, "normalise", lambda self, pixels: used.add(self) or normalise(self, pixels))
    given = {**inputs, "verify": str(odd_verify)}
    execute(STAGE["train"], artifacts.settings(epochs=1), given, str(tmp_path / "train"))
    own = Preprocessing(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (teachers,) = used - {own}
    assert own in used and teachers.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert read_preprocessing(tmp_path / "train" / "model") == own
    used.clear()
    settings = EvaluateSettings(batch=4, device="cpu", min_ratio_to_frequency=0.0)
    scored = {"data": inputs["data"], "audit": inputs["audit"], "train": str(tmp_path / "train")}
    execute(STAGE["evaluate"], settings, scored, str(tmp_path / "evaluate"))
    assert used == {own}


# F17: student and teacher look at one crop.

LARGE, SMALL = 64, 32


def distance(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Mean distance of a pixel, of 255, when the student's view is made as small as the teacher's."""
    return (torch.nn.functional.avg_pool2d(student.float(), 2) - teacher.float()).abs().mean().item()


@pytest.mark.parametrize("operations", [0, 2])
def test_f17_the_teacher_sees_the_students_crop_from_one_decode(inputs, monkeypatch, operations):
    decoded: list[int] = []
    decode = reading.decode_pixels
    monkeypatch.setattr(reading, "decode_pixels", lambda data: decoded.append(len(data)) or decode(data))
    augment = AugmentSettings(operations=operations)
    taken = Loader(Path(inputs["data"]), Path(inputs["embed"]), LARGE, SMALL, epochs=3, augment=augment).batches()
    apart = [distance(*both) for batch in taken for both in zip(batch.pixels, batch.teacher_pixels, strict=True)]
    assert len(decoded) == len(apart) == 36
    assert np.median(apart) < 2 and (operations or max(apart) < 3)


def test_f17_two_crops_would_be_seen(inputs):
    """The public fine-tuning transforms an image twice, with a draw each."""
    dataset, apart, settings = Dataset(Path(inputs["data"])), [], AugmentSettings(operations=0)
    for sample in range(12):
        pixels, stream = reading.decode_pixels(dataset.image(sample)), generator(0, 0, sample)
        student, teacher = (
            views(pixels, draw(pixels.shape[1], pixels.shape[0], settings, stream), [size])[0]
            for size in (LARGE, SMALL)
        )
        apart.append(distance(student, teacher))
    assert np.median(apart) > 10


# F18: small crops keep all tags of the whole image.


@pytest.mark.parametrize("min_scale", [0.2, 0.6, 0.9])
def test_f18_the_smallest_crop_is_the_settings(min_scale):
    settings = AugmentSettings(min_scale=min_scale)
    plans = [draw(400, 400, settings, generator(0, 0, n)) for n in range(2000)]
    shares = [(p.box[2] - p.box[0]) * (p.box[3] - p.box[1]) / 400**2 for p in plans]
    assert min_scale - 0.005 < min(shares) < min_scale + 0.05


def test_f18_the_loader_crops_as_the_settings_say(inputs, monkeypatch):
    """The whole image, as often as the settings allow nothing smaller."""
    asked: list[float] = []

    def crop(width, height, min_scale, stream):
        asked.append(min_scale)
        return random_crop(width, height, min_scale, stream)

    monkeypatch.setattr("ramflow.train.augment.random_crop", crop)
    Loader(Path(inputs["data"]), Path(inputs["embed"]), epochs=1, augment=AugmentSettings(min_scale=0.77)).batches()
    assert asked == [0.77] * 12


# F28: a run that goes on does not see again what it saw.


@pytest.fixture
def seen(monkeypatch) -> list[tuple[int, list[bytes], list[int]]]:
    """Every step that a trainer takes: its number, what was in its batch, and the numbers of its samples."""
    taken: list[tuple[int, list[bytes], list[int]]] = []
    step = Trainer._step

    def noted(self, batch):
        taken.append((self.position.step, content(batch), batch.samples.tolist()))
        step(self, batch)

    monkeypatch.setattr(Trainer, "_step", noted)
    return taken


def test_f28_going_on_in_the_middle_of_an_epoch_repeats_no_sample(inputs, tmp_path, seen, monkeypatch):
    """12 images, 3 steps an epoch, a checkpoint after 4 steps: the second epoch has one step behind it."""
    settings = artifacts.settings(checkpoint_every=4)
    execute(STAGE["train"], settings, inputs, str(tmp_path / "whole"))
    whole = list(seen)
    seen.clear()
    noted = Trainer._step

    def interrupted(self, batch):
        if self.position.step == 5:
            raise KeyboardInterrupt
        noted(self, batch)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE["train"], settings, inputs, str(tmp_path / "broken"))
    seen.clear()
    monkeypatch.setattr(Trainer, "_step", noted)
    torch.manual_seed(99)
    execute(STAGE["train"], settings, inputs, str(tmp_path / "broken"))
    assert [step for step, _, _ in seen] == [4, 5]
    assert [(step, batch) for step, batch, _ in seen] == [(step, batch) for step, batch, _ in whole[4:]]
    samples = [sample for _, _, own in [whole[3], *seen] for sample in own]
    assert sorted(samples) == list(range(12))
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


# F29: every sample once an epoch, however many processes.


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize(("count", "batch"), [(12, 5), (13, 4), (7, 16), (1, 8)])
def test_f29_every_sample_comes_exactly_once_an_epoch(count, batch, world):
    order = Order(np.arange(count), [range(0, 5), range(5, 20)], 3, "sha256:" + "5" * 64, 2)
    for epoch in range(2):
        taken = [sample for rank in range(world) for request in order.batches(batch, 2, 0, rank, world)
                 if request.epoch == epoch for sample in request.samples.tolist()]  # fmt: skip
        assert sorted(taken) == list(range(count))


def test_f29_the_counts_are_said(inputs, tmp_path, capsys):
    verdict = execute(STAGE["train"], artifacts.settings(batch=5, epochs=1), inputs, str(tmp_path / "train"))
    assert "train: 12 images, 3 steps of 5" in capsys.readouterr().err
    assert (verdict.metrics["images"], verdict.metrics["steps"]) == (12, 3)


# F30: augmentation is of the sample, not of the process that reads it.


@pytest.fixture
def one_picture(records, pack_records, tmp_path) -> tuple[Path, Path]:
    """Eight samples of one picture, packed, and their embeddings."""
    data = pack_records([records[0] | {"caption": [f"picture {n}"]} for n in range(8)])
    return data, artifacts.write_embed(tmp_path / "embed", Dataset(data))


def view_of(batches: list[Batch]) -> dict[tuple[int, int], bytes]:
    """Every view by epoch and sample."""
    places = [(n * 4 // 8, int(sample), pixels) for n, batch in enumerate(batches)
              for sample, pixels in zip(batch.samples, batch.pixels, strict=True)]  # fmt: skip
    return {(epoch, sample): pixels.numpy().tobytes() for epoch, sample, pixels in places}


def test_f30_processes_that_read_share_no_random_stream(one_picture):
    """With numpy's own stream, as public loaders have it, workers that are forked draw the same crops."""
    alone = view_of(Loader(*one_picture, augment=AugmentSettings()).batches())
    assert len(alone) == len(set(alone.values())) == 16
    assert view_of(Loader(*one_picture, augment=AugmentSettings(), workers=2).batches()) == alone


def test_f30_no_global_random_stream_is_read_or_moved(one_picture):
    made = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        loader = Loader(*one_picture, augment=AugmentSettings())
        made.append([content(loader.samples[request]) for request in loader.order.batches(4, 2)])
        assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert made[0] == made[1]


# F47: AutoContrast that turns pictures white.

DARK = np.broadcast_to(np.arange(40, 140, dtype=np.uint8)[:, None, None], (100, 100, 3)).copy()


def contrasted(name: str) -> torch.Tensor:
    """A picture whose darkest value is 40, with its contrast stretched as the settings say."""
    settings = AugmentSettings(min_scale=1.0, operations=1, auto_contrast=name)
    for number in range(1000):
        plan = draw(100, 100, settings, generator(0, 0, number))
        if plan.operations and "auto_contrast" in plan.operations[0][0]:
            return views(DARK, plan, [100])[0]
    raise AssertionError("never drawn")


def test_f47_a_picture_without_black_keeps_its_content():
    stretched = contrasted("correct")
    assert stretched.min() == 0 and stretched.max() >= 254 and stretched.unique().numel() == 100


def test_f47_the_public_fault_is_to_be_had_on_request_only():
    assert (contrasted("public") == 255).all()
    assert AugmentSettings().auto_contrast == "correct" == artifacts.settings().augment.auto_contrast


def test_f47_it_would_meet_a_tenth_of_all_images():
    plans = [draw(64, 64, AugmentSettings(), generator(0, 0, number)) for number in range(8000)]
    met = np.mean([any(name == "auto_contrast" for name, _ in plan.operations) for plan in plans])
    assert len(OPERATIONS) == 10 and met == pytest.approx(0.0975, abs=0.01)
