"""Monitors against plain arithmetic on the whole gradient, and the losses of constant predictors against torch."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ramflow.model.losses import ALIGNMENT_GAMMA_NEGATIVE, TAG_GAMMA_NEGATIVE, asymmetric_loss
from ramflow.train import baselines
from ramflow.train.baselines import constant_alignment_loss, constant_tag_loss
from ramflow.train.monitors import GradientProbe, UpdateRatios, cosine, group_of, norm


def parameters(*shapes: tuple[int, ...]) -> list[tuple[str, nn.Parameter]]:
    return [(str(i), nn.Parameter(torch.randn(shape))) for i, shape in enumerate(shapes)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_small_model_is_measured_exactly() -> None:
    probe = GradientProbe(parameters((30, 20), (7,), ()))
    a, b = ([torch.randn(p.shape) for p in probe.parameters] for _ in range(2))
    whole_a, whole_b = (torch.cat([g.flatten() for g in grads]) for grads in (a, b))
    assert norm(probe.sample(a)).item() == pytest.approx(whole_a.norm().item(), rel=1e-6)
    expected = torch.cosine_similarity(whole_a, whole_b, dim=0).item()
    assert cosine(probe.sample(a), probe.sample(b)).item() == pytest.approx(expected, abs=1e-6)
    assert len(probe.sample(a)) == 608


def test_a_sample_of_a_large_model_stands_for_the_whole() -> None:
    probe = GradientProbe(parameters((1536, 768), (768, 768), (768,)), most=40_000)
    columns = torch.linspace(0.2, 5.0, 768)  # a stride that divides the width would meet some columns only
    a = [torch.randn(p.shape) * columns for p in probe.parameters]
    b = [x + 0.5 * torch.randn(x.shape) * columns for x in a]
    whole_a, whole_b = (torch.cat([g.flatten() for g in grads]) for grads in (a, b))
    assert len(probe.sample(a)) <= 40_000
    assert norm(probe.sample(a)).item() == pytest.approx(whole_a.norm().item(), rel=0.02)
    expected = torch.cosine_similarity(whole_a, whole_b, dim=0).item()
    assert cosine(probe.sample(a), probe.sample(b)).item() == pytest.approx(expected, abs=0.01)


def test_samples_of_several_processes_add_up_and_are_the_same_every_time() -> None:
    probe = GradientProbe(parameters((200, 300), (300,)), most=3000)
    a, b = ([torch.randn(p.shape) for p in probe.parameters] for _ in range(2))
    summed = probe.sample([x + y for x, y in zip(a, b, strict=True)])
    assert torch.allclose(probe.sample(a) + probe.sample(b), summed, atol=1e-4)
    assert torch.equal(probe.sample(a), probe.sample(a))
    assert torch.equal(probe.sample(a), GradientProbe(parameters((200, 300), (300,)), most=3000).sample(a))


def test_a_loss_that_does_not_reach_a_parameter_counts_as_zero() -> None:
    probe = GradientProbe(parameters((10, 10), (5,)))
    grad = torch.randn(10, 10)
    assert norm(probe.sample([grad, None])).item() == pytest.approx(grad.norm().item(), rel=1e-6)
    assert probe.sample([None, None]).count_nonzero() == 0
    assert cosine(probe.sample([grad, None]), probe.sample([None, None])).isnan()


def test_gradients_left_out_are_those_of_the_parameters_and_bfloat16_is_measured_in_float32() -> None:
    probe = GradientProbe(parameters((4, 4)))
    probe.parameters[0].grad = torch.full((4, 4), 2.0)
    assert norm(probe.sample()).item() == 8.0
    assert probe.sample([torch.full((4, 4), 2.0, dtype=torch.bfloat16)]).dtype == torch.float32


def test_a_sample_does_not_follow_what_it_was_taken_of() -> None:
    probe = GradientProbe(parameters((6,)))
    grad = torch.ones(6)
    sample = probe.sample([grad])
    grad.fill_(9.0)
    assert sample.tolist() == [1.0] * 6


class Tree(nn.Module):
    """Names as in RAM++."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"swin": nn.ModuleDict({
            "patch_embed": nn.Linear(4, width), "layers": nn.ModuleList(nn.Linear(width, width) for _ in range(2)),
            "norm": nn.LayerNorm(width)})})  # fmt: skip
        self.image_projection = nn.Linear(width, width)
        self.head = nn.ModuleDict({"project": nn.Linear(width, width), "logit": nn.Linear(width, 1),
                                   "layers": nn.ModuleList([nn.Linear(width, width)])})  # fmt: skip


@pytest.mark.parametrize("most", [1 << 22, 2000])
def test_update_ratios_are_the_move_over_the_size_by_group(most: int) -> None:
    model = Tree(40)
    ratios = UpdateRatios(model, most)
    ratios.before()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            factor = 1.01 if name.startswith("encoder.swin.layers.1") else 1.001 if name.startswith("head.") else 1.0
            parameter *= factor
    found = {group: value.item() for group, value in ratios.after().items()}
    assert list(found) == [
        "encoder.patch_embed", "encoder.stage0", "encoder.stage1", "encoder.norm", "image_projection", "head.project",
        "head.logit", "head.layer0",
    ]  # fmt: skip
    for group, value in found.items():
        expected = 0.01 if group == "encoder.stage1" else 0.001 if group.startswith("head.") else 0.0
        assert value == pytest.approx(expected, rel=1e-2, abs=1e-9), group


def test_groups_have_the_names_of_the_contract() -> None:
    assert group_of("encoder.swin.layers.3.blocks.0.attn.qkv.weight") == "encoder.stage3"
    assert group_of("head.layers.1.attention.query.weight") == "head.layer1"
    assert group_of("reweighting.scale") == "reweighting"
    assert group_of("image_projection.bias") == "image_projection"


def rest(positive: float, negative: float, gamma: float) -> float:
    """The loss where gradient descent on one logit comes to rest, by descent."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.tensor([True, False]), torch.tensor([positive, negative], dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (weights * asymmetric_loss(x.expand(2), targets, gamma)).sum()

    for _ in range(3000):
        x.data -= 5.0 * torch.autograd.grad(loss(), x)[0] / weights.sum()
    assert torch.autograd.grad(loss(), x)[0].abs().item() < 1e-5
    return loss().item()


@pytest.mark.parametrize("frequency", [0.01, 0.1, 0.5])
def test_the_constant_of_a_tag_is_where_training_comes_to_rest(frequency: float) -> None:
    expected = rest(frequency, 1 - frequency, TAG_GAMMA_NEGATIVE)
    assert constant_tag_loss([frequency], [True]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("captions", "negatives"), [(8, 1.0), (52, 1.0), (416, 51 / 415)])
def test_the_constant_of_captions_is_where_training_comes_to_rest(captions: int, negatives: float) -> None:
    expected = rest(1.0, negatives * (captions - 1), ALIGNMENT_GAMMA_NEGATIVE)
    assert constant_alignment_loss(captions, negatives) == pytest.approx(expected, rel=1e-3)


def test_masked_unseen_and_universal_tags_cost_nothing_and_tags_add_up() -> None:
    assert constant_tag_loss([0.0, 1.0], [True, True]) == pytest.approx(0, abs=1e-9)
    assert constant_tag_loss([0.3, 0.2], [True, False]) == constant_tag_loss([0.3], [True])
    assert constant_tag_loss(np.full(100, 0.02), np.ones(100)) == pytest.approx(100 * constant_tag_loss([0.02], [True]))
    assert constant_alignment_loss(1) == pytest.approx(0, abs=1e-9)
    assert math.isfinite(constant_tag_loss([1e-12, 1 - 1e-12], [True, True]))


def test_the_constants_are_those_of_the_losses() -> None:
    from ramflow.model import losses

    assert (baselines.CLIP, baselines.TAG_GAMMA, baselines.ALIGNMENT_GAMMA) == (
        losses.CLIP, losses.TAG_GAMMA_NEGATIVE, losses.ALIGNMENT_GAMMA_NEGATIVE,
    )  # fmt: skip
