"""The sliced, fused and folded head gives what plain autograd through the published mathematics gives."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ramflow.model.encoder import Swin
from ramflow.model.execution import Execution
from ramflow.model.losses import Target, Wanted, asymmetric_sum, asymmetric_sum_and_gradient
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from tests.model import golden
from tests.reference.ram_plus import Encoder, PlainRamPlus, batch_of

NAME = "swin_tiny_patch4_window7_224"
OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
HEAD = {"hidden": 16, "layers": 2, "heads": 2, "feed_forward": 24, "dropout": 0.0}
TAGS, WIDTH, IMAGES = 7, 12, 4
MODES = [Execution(slice=s, fold=fold, fused=fused) for s in (1, 3, 512) for fold in (True, False)
         for fused in (True, False)]  # fmt: skip


def make(tokens: int = 5, head: dict = HEAD) -> tuple[RamPlus, PlainRamPlus, torch.Tensor]:
    """Ours and the plain model with the same weights in double precision, and image tokens."""
    torch.manual_seed(1)
    embeddings = F.normalize(torch.randn(TAGS, 3, WIDTH), dim=-1)
    mask = torch.rand(TAGS, 3) < 0.7
    mask[:, 0] = True
    ours = RamPlus(Swin(NAME, OPTIONS), HeadSettings(**head), embeddings, mask)
    plain = PlainRamPlus(Encoder(NAME, OPTIONS), head, embeddings.double(), mask)
    for name, parameter in ours.head.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours.double(), plain.double(), torch.randn(IMAGES, tokens, WIDTH, dtype=torch.double)


def batch(valid: tuple[bool, ...] = (True,) * IMAGES) -> tuple[Wanted, torch.Tensor, dict]:
    """Equal captions, a missing one, more captions than images; a masked tag, soft targets, weighted negatives."""
    draw = torch.Generator().manual_seed(3)
    captions = F.normalize(torch.randn(6, WIDTH, dtype=torch.double, generator=draw), dim=-1)
    ids = torch.tensor([3, 1, 3, 0, 2, 1])
    wanted = Wanted(
        torch.rand(IMAGES, TAGS, generator=draw) < 0.4,
        torch.randn(IMAGES, WIDTH, dtype=torch.double, generator=draw),
        torch.tensor(valid), ids[:IMAGES], captions, ids,
    )  # fmt: skip
    floor = torch.tensor([0.0, 0.1, 0.0, 0.0, 0.2, 0.0, 0.0])
    return wanted, torch.arange(TAGS) != 2, {"floor": floor, "negatives": 0.7}


def rows(wanted: Wanted, part: slice) -> Wanted:
    parts = {key: getattr(wanted, key)[part] for key in ("targets", "teacher", "valid", "caption_ids")}
    return replace(wanted, **parts)


def gradients(model: torch.nn.Module, tokens: torch.Tensor, losses) -> list[torch.Tensor]:
    """Of each loss to tokens and to the parameters of head and re-weighting; zero where there is none."""
    parameters = sorted((name, p) for name, p in model.named_parameters() if name.startswith(("head", "reweighting")))
    inputs = [tokens, *(parameter for _, parameter in parameters)]
    result = []
    for loss in losses:
        found = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        result += [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return result


def of(losses) -> tuple[torch.Tensor, ...]:
    return losses.tag, losses.alignment, losses.distillation


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_losses_and_gradients_are_those_of_the_plain_model(mode):
    ours, plain, tokens = make()
    ours.execution = mode
    wanted, mask, more = batch((True, True, False, True))
    tokens.requires_grad_()
    actual = of(ours.losses(tokens, wanted, mask, **more))
    expected = plain.losses(tokens, batch_of(wanted, mask, **more))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    pairs = zip(gradients(ours, tokens, actual), gradients(plain, tokens, expected), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_folding_is_left_out_where_it_costs_more():
    ours, _, tokens = make(tokens=9)
    shapes = [side[0].shape for side in ours.head.image_sides(tokens, fold=True)]
    assert shapes == [(IMAGES, 2, 9, 8)] * 2  # 2 heads x 9 tokens are more than 16
    assert [len(side) for side in ours.head.image_sides(tokens[:, :5], fold=True)] == [3, 3]


@pytest.mark.parametrize("fused", [True, False])
def test_micro_batches_add_up_to_the_batch(fused):
    ours, _, tokens = make()
    ours.execution = Execution(slice=3, fused=fused)
    wanted, mask, more = batch()
    tokens.requires_grad_()
    whole = gradients(ours, tokens, of(ours.losses(tokens, wanted, mask, **more)))
    for parts in ((slice(0, 1), slice(1, 4)), (slice(0, 2), slice(2, 4))):
        pieces = [gradients(ours, tokens, of(ours.losses(tokens[p], rows(wanted, p), mask, **more))) for p in parts]
        for a, b, c in zip(whole, *pieces, strict=True):
            torch.testing.assert_close(b + c, a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_placeholders_and_masked_tags_have_no_gradient(fused):
    ours, _, tokens = make()
    ours.execution = Execution(slice=2, fused=fused)
    tokens[1] *= 1e6
    tokens.requires_grad_()
    wanted, mask, more = batch((True, False, True, True))
    losses = of(ours.losses(tokens, wanted, mask, **more))
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, tokens, retain_graph=True)
        assert (gradient[1] == 0).all() and (gradient[0] != 0).any()
    without = gradients(ours, tokens, losses)
    ours.embeddings[2] = -ours.embeddings[2]
    wanted.targets[:, 2] = ~wanted.targets[:, 2]
    again = gradients(ours, tokens, of(ours.losses(tokens, wanted, mask, **more)))
    assert all(torch.equal(a, b) for a, b in zip(without, again, strict=True))
    nothing = ours.losses(tokens, wanted, torch.zeros(TAGS, dtype=torch.bool))
    assert all((g == 0).all() for g in gradients(ours, tokens, [nothing.tag]))


def test_gradients_can_be_asked_for_again_and_scaled():
    ours, _, tokens = make()
    wanted, mask, _ = batch()
    tokens.requires_grad_()
    loss = ours.losses(tokens, wanted, mask).tag
    first, second = (torch.autograd.grad(loss, tokens, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (-3 * loss).backward()
    torch.testing.assert_close(tokens.grad, -3 * first)


def test_frozen_parameters_and_tokens():
    ours, _, tokens = make()
    wanted, mask, _ = batch()
    whole = ours.losses(tokens.requires_grad_(), wanted, mask).tag
    (expected,) = torch.autograd.grad(whole, ours.head.logit.weight)
    ours.requires_grad_(False)
    ours.head.logit.weight.requires_grad_()
    loss = ours.losses(tokens.detach(), wanted, mask).tag
    loss.backward()
    torch.testing.assert_close(ours.head.logit.weight.grad, expected)
    assert ours.head.project.weight.grad is None
    with torch.no_grad():
        alone = ours.losses(tokens, wanted, mask).tag
    assert not alone.requires_grad
    torch.testing.assert_close(alone, loss.detach())


@pytest.mark.parametrize("mode", [Execution(slice=2), Execution(slice=2, fold=False), Execution(fused=False)], ids=str)
def test_dropout_is_the_same_for_the_loss_and_its_gradient(mode):
    """With positives alone no weight hides from the gradient: a small move changes the loss as the gradient says."""
    ours, _, tokens = make(head=HEAD | {"dropout": 0.3})
    ours.train().execution = mode
    wanted, mask, _ = batch()
    wanted = replace(wanted, targets=torch.ones_like(wanted.targets))

    def loss(at: torch.Tensor, seed: int = 5) -> torch.Tensor:
        torch.manual_seed(seed)
        return ours.losses(at, wanted, mask).tag

    assert not torch.allclose(loss(tokens), loss(tokens, seed=6))
    (gradient,) = torch.autograd.grad(loss(tokens.requires_grad_()), tokens)
    move = 1e-5 * torch.randn_like(tokens)
    with torch.no_grad():
        change = (loss(tokens + move) - loss(tokens - move)) / 2
    torch.testing.assert_close(change, (gradient * move).sum(), rtol=1e-5, atol=0)


def test_bfloat16_autocast_stays_near_and_losses_are_float32():
    ours, _, tokens = make()
    ours.float()
    wanted, mask, more = batch()
    wanted = replace(wanted, captions=wanted.captions.float(), teacher=wanted.teacher.float())
    tokens = tokens.float().requires_grad_()
    exact = of(ours.losses(tokens, wanted, mask, **more))
    with torch.autocast("cpu", torch.bfloat16):
        rough = of(ours.losses(tokens, wanted, mask, **more))
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
    near, want = (torch.autograd.grad(losses[0], tokens)[0].flatten() for losses in (rough, exact))
    assert F.cosine_similarity(near, want, dim=0) > 0.99


def test_the_analytic_gradient_of_the_asymmetric_loss():
    torch.manual_seed(0)
    logits = (8 * torch.randn(6, 9, dtype=torch.double)).requires_grad_()
    for gamma in (4.0, 7.0):
        floor = torch.where(torch.rand(9) < 0.5, 0.2, 0.0)
        target = Target(torch.rand(6, 9) < 0.3, torch.rand(6, 9) < 0.8, gamma, floor, torch.tensor(0.6))
        loss, gradient = asymmetric_sum_and_gradient(logits.detach(), target)
        plain = asymmetric_sum(logits, target)
        torch.testing.assert_close(loss, plain.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(plain, logits)[0], rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def public():
    """The public code's figures, our model with its weights in double precision, and whole losses and gradients."""
    figures = golden.load()
    model = golden.model(figures).eval().double()
    return figures, model, _pass(figures, model, [slice(None)])


def _pass(figures: dict, model: RamPlus, parts: list[slice]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    total, images = torch.zeros(3, dtype=torch.double), golden.inputs(figures)["images"]
    mask = torch.ones(12, dtype=torch.bool)
    for part in parts:
        losses = model.losses(model.tokens(images[part]), golden.wanted(figures, part), mask)
        values = torch.stack(of(losses)) * torch.tensor([1, 1, 0.25])
        values.sum().backward()
        total += values.detach()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("execution", "cut"),
    [
        (Execution(slice=5, fold=False), None),
        (Execution(slice=5, recompute="selective"), None),
        (Execution(slice=5, recompute="blocks"), 1),
        (Execution(slice=512, fused=False, fold=False), None),
        (Execution(slice=512, fused=False), 2),
        (Execution(slice=1), 2),
        (Execution(), 1),
    ],
    ids=str,
)
def test_the_public_figures_in_every_mode(public, execution, cut):
    figures, model, (_, gradients) = public
    model.execution = execution
    parts = [slice(None)] if cut is None else [slice(0, cut), slice(cut, 4)]
    losses, actual = _pass(figures, model, parts)
    expected = figures["expected"]
    want = [expected[f"loss_{name}"] for name in ("tag", "alignment", "dis")]
    torch.testing.assert_close(losses, torch.tensor(want, dtype=torch.double), rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=max(1e-5 * gradient.abs().max().item(), 1e-9))
    with torch.no_grad():
        logits = model(golden.inputs(figures)["images"])
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]).double(), rtol=1e-5, atol=1e-5)


def test_the_plain_model_gives_the_public_figures():
    figures = golden.load()
    ours = golden.model(figures).eval()
    m = figures["model"]
    options = {k: m[k] for k in ("embed_dim", "depths", "num_heads", "window_size")} | {"img_size": m["image_size"]}
    head = HeadSettings(dropout=0.0).model_dump()
    plain = PlainRamPlus(Encoder(NAME, options), head, ours.embeddings.double(), ours.mask)
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    plain.eval().double()
    batch = batch_of(golden.wanted(figures), torch.ones(12, dtype=torch.bool))
    tag, alignment, distillation = plain.losses(plain.tokens(golden.inputs(figures)["images"]), batch)
    expected = figures["expected"]
    assert tag.item() == pytest.approx(expected["loss_tag"], rel=1e-5)
    assert alignment.item() == pytest.approx(expected["loss_alignment"], rel=1e-5)
    assert distillation.item() / 4 == pytest.approx(expected["loss_dis"], rel=1e-5)
