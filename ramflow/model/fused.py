"""Pairs of layers as one autograd function each, that keeps less for the backward pass than the two apart.

The mathematics is that of the two layers. Under autocast the products are in autocast's type and statistics in float32,
and weights are cast again in the backward pass, so that no second copy of them is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Gradients = tuple[Tensor | None, ...]


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that products of ``x`` are computed in: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """``linear(norm(x))`` [..., out] of x [..., in]; of the norm's input and output, only the normalised x is kept."""
    dtype = compute_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps, dtype)


def gelu_linear(x: Tensor, linear: nn.Linear, keep: bool) -> Tensor:
    """``linear(gelu(x))`` [..., out] of x [..., in]; ``keep`` keeps GELU's output, else the backward pass computes it
    again from x, element by element."""
    dtype = compute_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return GeluLinear.apply(x.to(dtype), linear.weight, linear.bias, keep)


class NormLinear(torch.autograd.Function):
    """A layer norm and the linear layer after it.

    Kept: xhat, the normalised input, in the products' type, and the reciprocal deviations.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        """The linear layer's output, of type ``dtype``."""
        xhat, _, rstd = torch.native_layer_norm(_statistics(x), (x.shape[-1],), None, None, eps)
        normed = torch.addcmul(beta, xhat, gamma).to(dtype)
        ctx.save_for_backward(xhat.to(dtype), rstd, gamma, beta, weight)
        ctx.x_dtype, ctx.has_bias = x.dtype, bias is not None
        return F.linear(normed, weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        """Gradients of x, gamma, beta, weight and bias."""
        xhat, rstd, gamma, beta, weight = ctx.saved_tensors
        normed = torch.addcmul(beta, _statistics(xhat), gamma).to(dy.dtype)
        dweight, dbias = linear_gradients(dy, normed, weight, ctx.has_bias, ctx.needs_input_grad[3:5])
        del normed
        dnormed = _statistics(dy @ weight.to(dy.dtype))
        mean, deviation = torch.zeros_like(rstd), torch.ones_like(rstd)  # of xhat
        dx, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
            dnormed, _statistics(xhat), (xhat.shape[-1],), mean, deviation, gamma, beta, list(ctx.needs_input_grad[:3])
        )
        dx = (dx * rstd).to(ctx.x_dtype) if ctx.needs_input_grad[0] else None
        return dx, dgamma, dbeta, dweight, dbias, None, None


class GeluLinear(torch.autograd.Function):
    """GELU (with the error function) and the linear layer after it.

    Kept: the input and, where ``keep`` says so, GELU's output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, keep: bool) -> Tensor:
        """The linear layer's output, of x's type."""
        activated = F.gelu(x)
        ctx.save_for_backward(x, weight, activated if keep else None)
        ctx.has_bias = bias is not None
        return F.linear(activated, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        """Gradients of x, weight and bias."""
        x, weight, activated = ctx.saved_tensors
        activated = F.gelu(x) if activated is None else activated
        dweight, dbias = linear_gradients(dy, activated, weight, ctx.has_bias, ctx.needs_input_grad[1:3])
        del activated
        dx = torch.ops.aten.gelu_backward(dy @ weight.to(dy.dtype), x) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, None


def linear_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, has_bias: bool, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias of ``y = x weight' + bias``, in the weight's type; none where it is not wanted."""
    rows = dy.flatten(0, -2)
    dweight = (rows.T @ x.flatten(0, -2)).to(weight.dtype) if wanted[0] else None
    dbias = rows.sum(0).to(weight.dtype) if has_bias and wanted[1] else None
    return dweight, dbias


def _statistics(x: Tensor) -> Tensor:
    """``x`` in the type that means and deviations are computed in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
