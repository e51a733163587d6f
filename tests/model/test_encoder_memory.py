"""The encoder in every mode: the mathematics of timm's own forward pass, the memory that was promised."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.activations import BATCH, ENCODER, MEBIBYTE, MODES, saved_bytes
from ramflow.model import window_attention
from ramflow.model.encoder import Swin
from ramflow.model.execution import Execution

SMALL = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}
CASES = {
    "shifted windows, then one window": {},
    "windows as large as the image": {"window_size": 8},
    "windows that stand out over the image": {"img_size": 40, "window_size": 4},
    "odd sides at the merging": {"img_size": 36, "window_size": 3},
    "masks made for each image": {"dynamic_img_size": True},
    "no bias of queries, keys and values": {"qkv_bias": False},
    "always windows": {"img_size": 16, "always_partition": True},
}
RECOMPUTE = ("none", "selective", "blocks")
PLAIN = Execution(fused=False)


def swin(dtype=torch.float64, drop_path=0.0, **options) -> Swin:
    """A Swin whose every parameter matters."""
    torch.manual_seed(0)
    encoder = Swin("swin_tiny_patch4_window7_224", SMALL | options, drop_path=drop_path)
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return encoder.to(dtype)


def images(encoder: Swin, batch: int) -> torch.Tensor:
    dtype = next(encoder.parameters()).dtype
    return torch.randn(batch, 3, encoder.image_size, encoder.image_size, dtype=dtype)


def loss(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens * torch.linspace(-1, 1, tokens.numel(), dtype=tokens.dtype).view(tokens.shape)).sum()


def outcome(encoder: Swin, x: torch.Tensor, execution: Execution, seed: int = 0) -> list[torch.Tensor]:
    """Tokens, then the gradient of every parameter."""
    encoder.execution = execution
    torch.manual_seed(seed)
    tokens = encoder(x)
    return [tokens.detach(), *torch.autograd.grad(loss(tokens), list(encoder.parameters()))]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def same(ours: list[torch.Tensor], plain: list[torch.Tensor], output: float, gradient: float) -> None:
    assert distance(ours[0], plain[0]) <= output
    assert max(distance(a, b) for a, b in zip(ours[1:], plain[1:], strict=True)) <= gradient


@pytest.mark.parametrize("case", CASES)
def test_every_mode_has_the_mathematics_of_timm(case):
    encoder = swin(**CASES[case])
    for batch in (1, 3):
        x = images(encoder, batch)
        plain = outcome(encoder, x, PLAIN)
        for recompute in RECOMPUTE:
            same(outcome(encoder, x, Execution(recompute=recompute)), plain, 1e-12, 1e-11)


@pytest.mark.parametrize("kernel", [True, False], ids=["torch's kernel", "closed form"])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_float32_is_as_exact_as_promised(recompute, kernel, monkeypatch):
    monkeypatch.setattr(window_attention, "uses_kernel", lambda x: kernel)
    encoder = swin(torch.float32)
    x = images(encoder, 3)
    same(outcome(encoder, x, Execution(recompute=recompute)), outcome(encoder, x, PLAIN), 1e-6, 1e-5)


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_stochastic_depth_draws_what_timm_draws(recompute):
    encoder = swin(drop_path=0.5).train()
    x = images(encoder, 3)
    for seed in (0, 1):
        plain = outcome(encoder, x, PLAIN, seed)
        after = torch.rand(1)
        same(outcome(encoder, x, Execution(recompute=recompute), seed), plain, 1e-12, 1e-11)
        assert torch.rand(1) == after  # the backward pass draws nothing either
    assert distance(plain[0], outcome(encoder, x, PLAIN, 0)[0]) > 1e-3
    encoder.eval()
    same(outcome(encoder, x, Execution(recompute=recompute), 0), outcome(encoder, x, PLAIN, 1), 1e-12, 1e-11)


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_a_second_backward_pass_gives_the_same(recompute):
    encoder = swin(drop_path=0.5)
    encoder.execution = Execution(recompute=recompute)
    value, of = loss(encoder(images(encoder, 2))), list(encoder.parameters())
    first = torch.autograd.grad(value, of, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(value, of), strict=True))


@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_bfloat16_is_about_as_near_to_the_truth_as_plain_autocast(recompute, residual):
    encoder = swin(torch.float32, drop_path=0.2)
    x = images(encoder, 3)
    truth = outcome(encoder, x, PLAIN)
    with torch.autocast("cpu", torch.bfloat16):
        plain = outcome(encoder, x, PLAIN)
        ours = outcome(encoder, x, Execution(recompute=recompute, residual=residual))
    assert distance(ours[0], truth[0]) <= 1.5 * distance(plain[0], truth[0])
    errors = torch.tensor([[distance(a, t), distance(b, t)] for a, b, t in zip(ours, plain, truth, strict=True)])
    assert float(errors[:, 0].mean()) <= 1.5 * float(errors[:, 1].mean())
    assert float(errors[:, 0].max()) <= 0.2


def test_the_residual_type_counts_only_under_autocast():
    encoder = swin(torch.float32)
    x = images(encoder, 2)
    ours = outcome(encoder, x, Execution(residual=torch.bfloat16))
    assert all(torch.equal(a, b) for a, b in zip(ours, outcome(encoder, x, Execution()), strict=True))


def test_what_the_lean_pass_does_not_know_goes_through_timm():
    encoder = swin(proj_drop_rate=0.5)
    x = images(encoder, 2)
    ours, plain = outcome(encoder, x, Execution()), outcome(encoder, x, PLAIN)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_nothing_is_kept_without_gradients():
    encoder = swin().eval()
    encoder.execution = Execution(recompute="blocks")
    with torch.no_grad():
        tokens = encoder(images(encoder, 2))
    assert not tokens.requires_grad
    assert tokens.shape == (2, 1 + 16, encoder.width)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1))


@pytest.fixture(scope="module")
def large() -> tuple[FakeTensorMode, Swin]:
    with torch.device("meta"):
        encoder = Swin(ENCODER, {}, drop_path=0.2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return mode, encoder.to_empty(device="cpu")


@pytest.mark.parametrize("name", MODES)
def test_swin_l_keeps_no_more_than_promised(name, large):
    """Counted on tensors without numbers; ``benchmarks/activations.py`` counts on real ones."""
    mode, encoder = large
    with mode, torch.autocast("cpu", torch.bfloat16, enabled=MODES[name].autocast):
        x = torch.randn(BATCH, 3, 224, 224)
        encoder.execution = MODES[name].execution()
        kept = saved_bytes(lambda: encoder(x), encoder.parameters(), encoder.buffers()) / BATCH / MEBIBYTE
        encoder.execution = PLAIN
        plain = saved_bytes(lambda: encoder(x), encoder.parameters(), encoder.buffers()) / BATCH / MEBIBYTE
    assert 0.6 * MODES[name].limit < kept <= MODES[name].limit < 320 < plain
