"""Order, augmentation, schedule and parameter groups."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from ramflow.model.encoder import Swin
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import AugmentSettings, HeadSettings
from ramflow.train.augment import OPERATIONS, augment, generator, random_crop
from ramflow.train.samples import requests, steps_per_epoch
from ramflow.train.schedule import learning_rate, make_optimizer, parameter_groups, set_rate
from tests.train import artifacts


@pytest.mark.parametrize(("samples", "batch"), [(12, 4), (13, 4), (3, 8)])
def test_every_sample_exactly_once_an_epoch(samples, batch):
    batches = list(requests(samples, artifacts.settings(batch=batch, epochs=3), 0))
    assert len(batches) == 3 * steps_per_epoch(samples, batch)
    for epoch in range(3):
        assert sorted(n for b in batches for e, n in b if e == epoch) == list(range(samples))


def test_order_changes_with_epoch_and_seed_and_resumes_anywhere():
    settings = artifacts.settings(epochs=3)
    whole = list(requests(40, settings, 0))
    assert list(requests(40, settings, 17)) == whole[17:]
    assert [n for _, n in whole[0]] != [n for _, n in whole[10]]
    assert whole != list(requests(40, artifacts.settings(epochs=3, seed=1), 0))


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_augmentation_is_a_function_of_seed_epoch_and_sample():
    settings = AugmentSettings()
    views = {key: augment(picture(), 16, settings, generator(*key)).tobytes() for key in
             [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}  # fmt: skip
    assert len(set(views.values())) == 4
    assert augment(picture(), 16, settings, generator(0, 0, 0)).tobytes() == views[0, 0, 0]


def test_crops_keep_their_share_and_aspect():
    for seed in range(200):
        left, top, right, bottom = random_crop(60, 40, 0.3, np.random.default_rng(seed))
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40
        assert 0.28 <= (right - left) * (bottom - top) / 2400 <= 1.01
        assert 0.70 <= (right - left) / (bottom - top) <= 1.40


def test_a_picture_too_long_for_any_draw_is_cropped_in_its_middle():
    assert random_crop(400, 4, 1.0, np.random.default_rng(0)) == (197, 0, 202, 4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_size_and_mode(name):
    result = OPERATIONS[name](picture(), -0.5)
    assert result.size == (60, 40) and result.mode == "RGB"


def test_auto_contrast_stretches_a_channel_to_the_whole_range():
    """The public code turns a channel whose minimum is not 0 all white (F47)."""
    ramp = np.zeros((1, 101, 3), dtype=np.uint8)
    ramp[0, :, :] = np.arange(50, 151)[:, None]
    stretched = np.asarray(OPERATIONS["auto_contrast"](Image.fromarray(ramp), 0.5))
    assert stretched.min() == 0 and stretched.max() == 255 and 120 < stretched.mean() < 135


def test_the_warm_up_counts_steps_of_the_run_and_the_cosine_ends_at_the_least_rate():
    settings = artifacts.settings(
        learning_rate=1e-3, warmup_learning_rate=1e-5, min_learning_rate=1e-6, warmup_steps=50
    )
    rates = [learning_rate(step, 200, settings) for step in range(200)]
    assert rates[0] == 1e-5 and rates[50] == 1e-3 and max(rates) == 1e-3
    assert rates[25] == pytest.approx((1e-5 + 1e-3) / 2)
    assert rates[-1] == pytest.approx(1e-6)
    assert all(a < b for a, b in pairwise(rates[:51]))
    assert all(a > b for a, b in pairwise(rates[50:]))


def model() -> RamPlus:
    embeddings, mask = torch.ones(2, 1, 8), torch.ones(2, 1, dtype=torch.bool)
    return RamPlus(
        Swin(artifacts.ENCODER, artifacts.OPTIONS), HeadSettings(hidden=8, heads=2, feed_forward=8), embeddings, mask
    )


def test_norms_biases_tables_and_scale_do_not_decay():
    ram = model()
    decay, plain = sorted(parameter_groups(ram, artifacts.settings()), key=lambda g: -g["weight_decay"])
    names = {id(p): n for n, p in ram.named_parameters()}
    assert decay["weight_decay"] == 0.05 and plain["weight_decay"] == 0.0
    for name in (names[id(p)] for p in plain["params"]):
        assert name.endswith(("bias", "norm.weight", "norm1.weight", "norm2.weight", "table", "scale")), name
    for name in (names[id(p)] for p in decay["params"]):
        assert name.endswith("weight") and "norm" not in name, name
    assert len(decay["params"]) + len(plain["params"]) == len(names)


@pytest.mark.parametrize(("from_scratch", "share"), [(False, 0.1), (True, 1.0)])
def test_pretrained_weights_take_their_share_of_the_rate_and_fresh_ones_all_of_it(from_scratch, share):
    ram, settings = model(), artifacts.settings(pretrained_share=0.1, from_scratch=from_scratch)
    optimizer = make_optimizer(ram, settings)
    set_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in ram.named_parameters():
        assert rates[id(parameter)] == 0.5 * (share if name.startswith("encoder.") else 1.0), name
