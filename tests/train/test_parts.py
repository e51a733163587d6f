"""Schedule and parameter groups."""

from itertools import pairwise

import pytest
import torch

from ramflow.model.encoder import Swin
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from ramflow.train.schedule import describe_groups, learning_rate, make_optimizer, parameter_groups, set_rate
from tests.train import artifacts


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


@pytest.mark.parametrize(("rule", "factor"), [("constant", 1), ("square_root", 0.5), ("linear", 0.25)])
def test_the_rates_follow_the_effective_batch_by_the_named_rule(rule, factor):
    settings = artifacts.settings(batch=104, learning_rate_batch=416, learning_rate_rule=rule, warmup_steps=50)
    plain = artifacts.settings(learning_rate_rule="constant", warmup_steps=50)
    for step in (0, 10, 50, 120, 199):
        assert learning_rate(step, 200, settings) == pytest.approx(factor * learning_rate(step, 200, plain))


def test_the_groups_are_told_with_what_decays():
    lines = describe_groups(make_optimizer(model(), artifacts.settings()))
    assert len(lines) == 2 and sum("weight decay 0.05" in line for line in lines) == 1
