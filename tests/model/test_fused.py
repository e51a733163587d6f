"""The autograd functions of the lean encoder: closed forms against plain autograd and finite differences."""

import pytest
import torch
from timm.models.swin_transformer import WindowAttention
from torch import nn
from torch.nn import functional as F

from benchmarks.activations import saved_bytes
from ramflow.model import window_attention
from ramflow.model.fused import GeluLinear, NormLinear, gelu_linear, norm_linear
from ramflow.model.window_attention import ProjectedAttention, projected_attention


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(len(shapes))
    return [torch.randn(s, generator=source, dtype=torch.float64).requires_grad_() for s in shapes]


def gradients(value: torch.Tensor, of: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    return list(torch.autograd.grad((value * weights).sum(), of))


def close(ours, plain, tolerance):
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        assert (a - b).norm().item() <= tolerance * b.norm().item()


def test_norm_linear_passes_gradcheck():
    x, gamma, beta, weight, bias = leaves((2, 3, 5), (5,), (5,), (4, 5), (4,))
    for b in (bias, None):
        given = [x, gamma, beta, weight, b]
        assert torch.autograd.gradcheck(lambda *a: NormLinear.apply(*a, 1e-5, torch.float64), given)


@pytest.mark.parametrize("keep", [True, False])
def test_gelu_linear_passes_gradcheck(keep):
    x, weight, bias = leaves((2, 3, 5), (4, 5), (4,))
    for b in (bias, None):
        assert torch.autograd.gradcheck(lambda *a: GeluLinear.apply(*a, keep), [x, weight, b])


def attention(heads: int = 2, window: tuple[int, int] = (2, 3)) -> WindowAttention:
    torch.manual_seed(0)
    module = WindowAttention(8, heads, window_size=window).double()
    nn.init.normal_(module.relative_position_bias_table)
    return module


def shifted_mask(windows: int, tokens: int) -> torch.Tensor:
    mask = torch.zeros(windows, tokens, tokens, dtype=torch.float64)
    mask[0, :2, 2:] = mask[0, 2:, :2] = -100.0
    return mask


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kernel", [True, False], ids=["torch's kernel", "closed form"])
def test_window_attention_passes_gradcheck(masked, kernel, monkeypatch):
    monkeypatch.setattr(window_attention, "uses_kernel", lambda x: kernel)
    module = attention()
    (qkv,) = leaves((4, 6, 24))
    mask = shifted_mask(2, 6) if masked else None
    table, proj = module.relative_position_bias_table, module.proj

    def function(*given):
        return ProjectedAttention.apply(*given, module.relative_position_index, mask, 2)

    assert torch.autograd.gradcheck(function, [qkv, table, proj.weight, proj.bias])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kernel", [True, False], ids=["torch's kernel", "closed form"])
def test_window_attention_is_that_of_timm(masked, kernel, monkeypatch):
    monkeypatch.setattr(window_attention, "uses_kernel", lambda x: kernel)
    module = attention()
    (x,) = leaves((4, 6, 8))
    mask = shifted_mask(2, 6) if masked else None
    of = [x, *module.parameters()]
    plain, ours = module(x, mask), projected_attention(module.qkv(x), module, mask)
    close([ours], [plain], 1e-12)
    close(gradients(ours, of), gradients(plain, of), 1e-12)


def test_the_mask_and_the_table_count():
    module = attention()
    (qkv,) = leaves((4, 6, 24))
    mask = shifted_mask(2, 6)
    before = projected_attention(qkv, module, mask)
    assert not torch.allclose(before, projected_attention(qkv, module, None))
    module.relative_position_bias_table.data += torch.randn_like(module.relative_position_bias_table)
    assert not torch.allclose(before, projected_attention(qkv, module, mask))


def test_frozen_weights_get_no_gradient_and_the_rest_the_same():
    norm, linear, second = nn.LayerNorm(6).double(), nn.Linear(6, 8).double(), nn.Linear(8, 3).double()
    (x,) = leaves((4, 6))
    everything = [x, *norm.parameters(), *linear.parameters(), *second.parameters()]
    plain = gradients(second(F.gelu(linear(norm(x)))), everything)
    for frozen in (norm.weight, norm.bias, linear.weight, linear.bias, second.weight, second.bias):
        frozen.requires_grad_(False)
        rest = [i for i, t in enumerate(everything) if t is not frozen]
        value = gelu_linear(norm_linear(x, norm, linear), second, keep=False)
        close(gradients(value, [everything[i] for i in rest]), [plain[i] for i in rest], 1e-12)
        frozen.requires_grad_(True)


def test_what_is_kept_under_autocast_is_of_its_type():
    norm, linear, second = nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 64)
    x = torch.randn(10, 64)
    of = [*norm.parameters(), *linear.parameters(), *second.parameters()]
    for keep, hidden in ((True, 2 * 128), (False, 128)):
        with torch.autocast("cpu", torch.bfloat16):
            kept = saved_bytes(lambda keep=keep: gelu_linear(norm_linear(x, norm, linear), second, keep), of)
        assert kept == 10 * (2 * (64 + hidden) + 4)  # xhat and the hidden layer in bfloat16, one deviation a row


def test_under_autocast_it_is_as_near_to_the_truth_as_plain_autocast():
    torch.manual_seed(0)
    norm, linear, second = nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 64)
    x = torch.randn(50, 64, requires_grad=True)
    of = [x, *norm.parameters(), *linear.parameters(), *second.parameters()]
    truth = gradients(second(F.gelu(linear(norm(x)))), of)
    with torch.autocast("cpu", torch.bfloat16):
        plain = second(F.gelu(linear(norm(x))))
        ours = gelu_linear(norm_linear(x, norm, linear), second, keep=True)
    assert ours.dtype == plain.dtype == torch.bfloat16
    for a, b, t in zip(gradients(ours, of), gradients(plain, of), truth, strict=True):
        assert float((a - t).norm()) <= 1.5 * float((b - t).norm()) + 1e-3 * float(t.norm())
