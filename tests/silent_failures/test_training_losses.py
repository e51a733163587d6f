"""The silent failures of losses, schedule and model, each planted as the public code has it, and its clean control.

Numbers are those of the list of ways a RAM++ run goes wrong without saying so.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ramflow
from ramflow.errors import UserError
from ramflow.model.execution import Execution
from ramflow.model.losses import (
    TAG_GAMMA_NEGATIVE,
    Target,
    Wanted,
    asymmetric_loss,
    asymmetric_sum,
    asymmetric_sum_and_gradient,
    tag_loss,
)
from ramflow.model.reweighting import INITIAL_SCALE, MAX_SCALE, Reweighting
from ramflow.settings import read_settings
from ramflow.train.balance import first_weights
from ramflow.train.samples import Batch
from ramflow.train.schedule import describe_groups, learning_rate, make_optimizer, parameter_groups, set_rate
from ramflow.train.step import LOSSES
from tests.train import curves, engines

PACKAGE = Path(ramflow.__file__).parent


def wanted(images: int, captions: int = 5) -> Wanted:
    draw = torch.Generator().manual_seed(2)
    return Wanted(
        torch.rand(images, engines.TAGS, generator=draw) < 0.3, torch.randn(images, engines.WIDTH, generator=draw),
        torch.ones(images, dtype=torch.bool), torch.arange(images) % captions + 1,
        F.normalize(torch.randn(captions, engines.WIDTH, generator=draw), dim=-1), torch.arange(1, captions + 1),
    )  # fmt: skip


def model(fused: bool = True):
    ours = engines.engine(engines.settings()).model
    ours.execution = Execution(slice=4, fused=fused)
    return ours


def losses_of(ours, images: int = 4) -> list[torch.Tensor]:
    tokens = torch.randn(images, 5, engines.WIDTH, generator=torch.Generator().manual_seed(4), requires_grad=True)
    found = ours.losses(tokens, wanted(images), torch.ones(engines.TAGS, dtype=torch.bool))
    return [found.tag, found.alignment, found.distillation]


# F15: the mix of the losses does not follow the batch of a GPU.


def distinct(images: int) -> Batch:
    """A batch in which every image has a caption of its own."""
    batch = engines.batch(images)
    draw = torch.Generator().manual_seed(images)
    batch.captions[:] = F.normalize(torch.randn(images, engines.WIDTH, generator=draw), dim=-1)
    batch.caption_ids[:] = torch.arange(1, images + 1)
    return batch


def taken(batch: Batch, **changes) -> dict[str, float]:
    """What a step of the whole batch gives, with the weights that the settings give the losses."""
    given = engines.settings(batch=len(batch.samples), **changes)
    return engines.engine(given).step(batch, 0, 0.0, engines.OPEN, first_weights(given.balance), monitored=True).read()


def mix(values: dict[str, float], weights: tuple[float, float, float]) -> np.ndarray:
    """Shares of the three losses in their weighted sum."""
    parts = np.array([weight * values[f"loss_{name}"] for weight, name in zip(weights, LOSSES, strict=True)])
    return parts / parts.sum()


def test_f15_the_mix_is_the_same_at_26_images_and_at_208():
    batch, weights = distinct(208), first_weights(engines.settings().balance)
    parts = [taken(batch.mapped(lambda tensor, n=n: tensor[n::8])) for n in range(8)]
    few = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    many = taken(batch)
    assert mix(few, weights) == pytest.approx(mix(many, weights), rel=0.04)

    def public(values: dict[str, float], images: int) -> np.ndarray:
        """Tags and alignment are sums over a GPU's images, with as many negatives; the distillation is a mean."""
        negatives = (images - 1) / 51
        return mix(values, (images, images * negatives, 1.0))

    assert public(few, 26)[2] > 6 * public(many, 208)[2]


@pytest.mark.parametrize("micro_batch", [26, 7])
def test_f15_nor_the_micro_batch(micro_batch):
    whole, cut = taken(distinct(52)), taken(distinct(52), micro_batch=micro_batch)
    for name in (*(f"loss_{name}" for name in LOSSES), "grad_norm"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-5), name


# F19: a distillation at the floor of predicting the mean.


def falling_to(floor: float) -> curves.Curve:
    """A distillation that falls fast in the first epoch and then stands, of a teacher whose mean is 1 away."""
    curve = curves.clean(8000)
    noise = curve.values[:, 2] / curve.clean[:, 2]
    curve.values[:, 2] = (floor + np.exp(-np.arange(8000) / 400)) * noise
    return curve


def test_f19_a_distillation_at_its_floor_is_named_and_not_taken_for_learning():
    found = [f for f in curves.detected(falling_to(1.0)) if f.what == "loss_distillation"]
    assert [f.event for f in found] == ["plateau"]
    assert "times what always predicting the teacher's mean feature would get" in found[0].sentence
    below = [f for f in curves.detected(falling_to(0.6)) if f.what == "loss_distillation"]
    assert not any("mean feature" in f.sentence for f in below)


# F20: the gate of a step, and clipping.


def state_of(engine: engines.Engine) -> list[torch.Tensor]:
    state = [value for own in engine.optimizer.state.values() for value in own.values()]
    return [tensor.detach().clone() for tensor in (*engine.parameters, *state)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["caption", "weight"])
def test_f20_nothing_is_learnt_of_a_loss_that_is_not_finite(bad, where):
    engine, batch = engines.engine(engines.settings(batch=8)), engines.batch(8)
    if where == "caption":
        batch.captions[2, 1] = bad
    else:
        engine.model.head.project.weight.data[0, 0] = bad
    before = state_of(engine)
    values = engine.step(batch, 0, 1e-3, engines.OPEN, engines.WEIGHTS).read()
    assert not values["good"] and not all(map(math.isfinite, (values["loss_tag"], values["loss_alignment"])))
    for ours, theirs in zip(state_of(engine), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_f20_a_finite_step_is_taken_and_its_gradient_clipped():
    moments = {}
    for clip in (1e-3, 1e9):
        engine = engines.engine(engines.settings(batch=8, clip_norm=clip))
        before = state_of(engine)
        values = engine.step(engines.batch(8), 0, 1e-3, engines.OPEN, engines.WEIGHTS).read()
        assert values["good"] and values["grad_norm"] > 1
        norms = [engine.optimizer.state[p]["exp_avg"].norm() for p in engine.parameters]
        moments[clip] = 10 * torch.stack(norms).norm().item()  # a tenth of the first gradient
        assert not all(torch.equal(a, b) for a, b in zip(state_of(engine), before, strict=True))
    assert moments == pytest.approx({1e-3: 1e-3, 1e9: values["grad_norm"]}, rel=1e-3)


# F21: a loss that switches autograd on where it is off.


def test_f21_losses_leave_autograd_as_they_find_it():
    calls: list[Callable[[], object]] = [
        lambda: asymmetric_loss(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), TAG_GAMMA_NEGATIVE),
        lambda: tag_loss(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)),
        lambda: asymmetric_sum(torch.zeros(1, 1), one_target(1)),
        lambda: asymmetric_sum_and_gradient(torch.zeros(1, 1), one_target(1)),
        lambda: losses_of(model()),
        lambda: losses_of(model(fused=False)),
    ]
    for call in calls:
        with torch.no_grad():
            result = call()
            assert not torch.is_grad_enabled()
            assert not any(t.requires_grad for t in tree_leaves(result) if isinstance(t, torch.Tensor))
        assert torch.is_grad_enabled()
        call()
        assert torch.is_grad_enabled()


def test_f21_nothing_in_the_package_sets_the_global_switch():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    names = [node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert "no_grad" in names and "set_grad_enabled" not in names


# F22: an epsilon that is nothing in half precision.


def one_target(columns: int) -> Target:
    return Target(torch.ones(1, columns, dtype=torch.bool), torch.ones(1, columns, dtype=torch.bool), 7.0)


def public_loss(logits: torch.Tensor) -> torch.Tensor:
    """Of positives."""
    return -torch.log(torch.sigmoid(logits).clamp(min=1e-8))


def test_f22_a_positive_that_is_surely_missed_costs_a_finite_loss():
    logits = torch.tensor([[-25.0, -30.0, -60.0]], dtype=torch.float16)
    assert public_loss(logits).isinf().all()
    ours = asymmetric_loss(logits, torch.ones(1, 3, dtype=torch.bool), TAG_GAMMA_NEGATIVE)
    assert ours.dtype == torch.float32 and ours.tolist() == [pytest.approx([25.0, 30.0, 60.0])]
    loss, gradient = asymmetric_sum_and_gradient(logits, one_target(3))
    assert loss.item() == pytest.approx(115.0) and gradient.tolist() == [[-1.0, -1.0, -1.0]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_f22_losses_are_float32_under_autocast(dtype, fused):
    ours, found = model(fused), {}
    with torch.no_grad():
        ours.head.logit.weight.zero_()
        ours.head.logit.bias.fill_(-25.0)
    for enabled in (True, False):
        with torch.autocast("cpu", dtype, enabled=enabled):
            found[enabled] = losses_of(ours)
    for half, whole in zip(found[True], found[False], strict=True):
        assert half.dtype == torch.float32 and half.isfinite()
        assert half.item() == pytest.approx(whole.item(), rel=0.01)
    sum(found[True]).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())


# F23: the warm-up goes by the step, not by the epoch.


def test_f23_a_warm_up_of_several_short_epochs_never_jumps():
    given = engines.settings(warmup_steps=3000, learning_rate=1e-4)
    for epoch_steps in (3, 700, 9303):  # 4, 5 and 0.3 epochs of warm-up and more
        total = max(5 * epoch_steps, 4000)
        rates = [learning_rate(step, total, given) for step in range(total)]
        rises = np.diff(rates[:3001])
        assert rises == pytest.approx((1e-4 - given.warmup_learning_rate) / 3000, rel=1e-6)
        assert rates[3000] == max(rates) and (np.diff(rates[3000:]) <= 0).all()

    def public(step: int, epoch_steps: int) -> float:
        """Warm-up in epoch 0, then the full rate."""
        return learning_rate(step, 4000, given) if step < epoch_steps else 1e-4

    assert public(700, 700) > 4 * public(699, 700)


# F24: every rate follows the batch by a rule that has a name, and every setting is used.


@pytest.mark.parametrize(("rule", "times"), [("constant", 1.0), ("square_root", 2.0), ("linear", 4.0)])
def test_f24_the_rate_follows_the_effective_batch_by_a_named_rule(rule, times):
    base, more = (engines.settings(batch=b, learning_rate_batch=104, learning_rate_rule=rule) for b in (104, 416))
    for step in (0, 1, 2, 50, 99):
        assert learning_rate(step, 100, more) == pytest.approx(times * learning_rate(step, 100, base))
    cut = engines.settings(batch=416, learning_rate_batch=104, learning_rate_rule=rule, micro_batch=26)
    assert learning_rate(50, 100, cut) == learning_rate(50, 100, more)


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [("learning_rate", 2e-3, 50), ("min_learning_rate", 5e-4, 99), ("warmup_learning_rate", 3e-4, 0),
     ("warmup_steps", 40, 30), ("learning_rate_batch", 26, 50), ("learning_rate_rule", "linear", 50)],
)  # fmt: skip
def test_f24_no_setting_of_the_schedule_is_read_and_forgotten(name, value, step):
    plain = {"learning_rate_batch": 104, "learning_rate_rule": "square_root"}
    base, changed = engines.settings(**plain), engines.settings(**{**plain, name: value})
    assert learning_rate(step, 100, base) != learning_rate(step, 100, changed)


def test_f24_the_schedule_reaches_the_rates_that_it_is_told():
    given = engines.settings(learning_rate=1e-3, min_learning_rate=2e-5, warmup_learning_rate=3e-6, warmup_steps=10)
    rates = [learning_rate(step, 100, given) for step in (0, 10, 99)]
    assert rates == pytest.approx([3e-6, 1e-3, 2e-5])
    optimizer = make_optimizer(engines.engine(given).model, given)
    set_rate(optimizer, rates[2])
    assert {group["lr"] for group in optimizer.param_groups} == {rates[2]}


@pytest.mark.parametrize("name", ["init_lr", "min_lr", "warmup_lr", "evaluate", "gradient_checkpointing"])
def test_f24_a_setting_that_nobody_uses_is_refused(name):
    with pytest.raises(UserError, match=rf"unknown key train\.{name}"):
        read_settings(None, [f"train.{name}=1"])


# F25: no decay where there is nothing to decay.


def test_f25_only_matrices_decay_and_the_groups_are_listed():
    """A step without a gradient moves what decays, and nothing else."""
    given = engines.settings(weight_decay=0.5, learning_rate=0.1)
    ours = engines.engine(given).model
    groups = parameter_groups(ours, given)
    names = {id(p): name for name, p in ours.named_parameters()}
    assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1  # biases begin at 0, where no decay is seen
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    optimizer = make_optimizer(ours, given)
    for parameter in ours.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, p in ours.named_parameters() if not torch.equal(p, before[name])}
    kept = set(before) - moved
    assert {name for name in kept if not name.endswith("bias")} == {
        name for name in before
        if "norm" in name.split(".")[-2] or name.endswith(("relative_position_bias_table", "reweighting.scale"))
    } - {name for name in before if name.endswith("bias")}  # fmt: skip
    assert {name for name in before if name.endswith("bias")} <= kept
    assert any("norm" in name for name in kept) and any("table" in name for name in kept)
    assert moved and all(name.endswith("weight") and before[name].ndim >= 2 for name in moved)
    lines = describe_groups(optimizer)
    assert len(lines) == 2 and "weight decay 0.5" in " ".join(lines) and "weight decay 0," in " ".join(lines)


# F26: a re-weighting scale without a bound.


@pytest.mark.parametrize("scale", [INITIAL_SCALE, 4.0, 50.0, 100.0])
def test_f26_the_scale_stops_at_a_hundred(scale):
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, 8, generator=draw, requires_grad=True)
    vectors = F.normalize(torch.randn(5, 4, 8, generator=draw), dim=-1)
    reweighting = Reweighting()
    with torch.no_grad():
        reweighting.scale.fill_(scale)
    direction = reweighting.direction(image)
    assert direction.norm(dim=-1).tolist() == pytest.approx([math.exp(min(scale, MAX_SCALE))] * 3, rel=1e-5)
    queries = reweighting(direction, vectors, torch.ones(5, 4, dtype=torch.bool))
    queries.square().sum().backward()
    assert queries.isfinite().all() and image.grad.isfinite().all() and reweighting.scale.grad.isfinite()
    public = (reweighting.scale.exp() * F.normalize(image, dim=-1) @ vectors.flatten(0, 1).T).view(3, 5, 4).softmax(-1)
    assert public.isfinite().all().item() == (scale < 88)


def test_f26_a_scale_at_its_bound_is_named_as_a_cause():
    curve = curves.drifting(curves.clean(batch=52), 0, 6000, 1.0)
    for scale, named in ((MAX_SCALE, True), (INITIAL_SCALE, False)):
        (found,) = [f for f in curves.detected(curve, scale=scale) if f.event == "drift"]
        assert ("re-weighting scale is at its clamp" in found.sentence) == named


# F48: a re-weighting whose cost grows with the square of the batch.


class Written(TorchDispatchMode):
    """Counts the elements of all tensors that operations make, and of the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self.elements += tensor.numel()
                self.largest = max(self.largest, tensor.numel())
        return result


DESCRIBED = F.normalize(torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1)), dim=-1)


def batched(image: torch.Tensor) -> torch.Tensor:
    ours = Reweighting()
    return ours(ours.direction(image), DESCRIBED, torch.ones(6, 5, dtype=torch.bool))


def public_loop(image: torch.Tensor) -> torch.Tensor:
    """An image after the other into one tensor: its backward pass copies all of it for each."""
    scale = torch.tensor(INITIAL_SCALE, requires_grad=True)
    logits = (scale.exp() * F.normalize(image, dim=-1) @ DESCRIBED.flatten(0, 1).T).view(len(image), 6, 5)
    weights, queries = logits.softmax(-1), torch.empty(len(image), 6, 8)
    for b in range(len(image)):
        queries[b] = (weights[b].unsqueeze(-1) * DESCRIBED).sum(dim=1)
    return queries


def heads_whole(image: torch.Tensor) -> torch.Tensor:
    """All of a step's head and losses."""
    ours = model()
    tokens = image.repeat(1, 10).view(len(image), 5, engines.WIDTH)
    found = ours.losses(tokens, wanted(len(image)), torch.ones(engines.TAGS, dtype=torch.bool))
    return found.tag + found.alignment + found.distillation


def cost(function: Callable[[torch.Tensor], torch.Tensor], images: int) -> tuple[int, int]:
    image = torch.randn(images, 8, generator=torch.Generator().manual_seed(3), requires_grad=True)
    with Written() as written:
        function(image).sum().backward()
    return written.elements, written.largest


@pytest.mark.parametrize("function", [batched, heads_whole])
def test_f48_cost_and_memory_grow_with_the_batch_and_not_with_its_square(function):
    (four, _), (eight, wide), (sixteen, wider) = (cost(function, images) for images in (4, 8, 16))
    assert sixteen - eight == 2 * (eight - four) > 0
    assert wider <= 2 * wide


def test_f48_a_loop_over_images_would_be_seen():
    queries = batched(torch.eye(8)), public_loop(torch.eye(8))
    torch.testing.assert_close(*queries)
    four, eight, sixteen = (cost(public_loop, images)[0] for images in (4, 8, 16))
    assert sixteen - eight > 2.5 * (eight - four)
