"""Attention within windows with relative position bias, and its output projection, as one autograd function.

Kept for the backward pass: queries, keys and values alone. Probabilities are computed again, as in flash attention
(arXiv 2205.14135), and with them the attention's output: within a window these are small products. On CUDA torch's own
attention is used, whose kernels hold no probabilities at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ramflow.model.fused import Gradients, linear_gradients


def projected_attention(qkv: Tensor, attention: Any, mask: Tensor | None) -> Tensor:
    """Attention of every window and its output projection [windows, tokens, width].

    Args:
        qkv: queries, keys and values [windows, tokens, 3 x heads x size], windows of an image side by side.
        attention: timm's ``WindowAttention``, whose ``qkv`` layer gave them.
        mask: added to the scores [windows of an image, tokens, tokens]; nothing where windows were not shifted.
    """
    table, index = attention.relative_position_bias_table, attention.relative_position_index
    proj = attention.proj
    with torch.autocast(qkv.device.type, enabled=False):
        if uses_kernel(qkv) and torch.compiler.is_compiling():  # it cannot trace autograd within a backward pass
            added = score_bias(table, index, mask)
            out = join(kernel_attention(*split(qkv, attention.num_heads), added))
            return F.linear(out, proj.weight.to(qkv.dtype), proj.bias.to(qkv.dtype))
        return ProjectedAttention.apply(qkv, table, proj.weight, proj.bias, index, mask, attention.num_heads)


class ProjectedAttention(torch.autograd.Function):
    """Softmax of scaled and biased scores, times values, projected."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        table: Tensor,
        weight: Tensor,
        bias: Tensor,
        index: Tensor,
        mask: Tensor | None,
        heads: int,
    ) -> Tensor:
        """The projection's output, of qkv's type."""
        ctx.save_for_backward(qkv, table, weight, index, mask)
        ctx.heads = heads
        q, k, v = split(qkv, heads)
        added = score_bias(table, index, mask)
        out = kernel_attention(q, k, v, added) if uses_kernel(qkv) else probabilities(q, k, added) @ v
        return F.linear(join(out), weight.to(qkv.dtype), bias.to(qkv.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        """Gradients of qkv, table, weight and bias."""
        qkv, table, weight, index, mask = ctx.saved_tensors
        q, k, v = split(qkv, ctx.heads)
        added = score_bias(table, index, mask)
        dout = (dy @ weight.to(dy.dtype)).unflatten(-1, (ctx.heads, -1)).transpose(1, 2)
        out, dqkv, dadded = (_kernel_gradients if uses_kernel(qkv) else _gradients)(q, k, v, added, dout)
        dweight, dbias = linear_gradients(dy, join(out), weight, True, ctx.needs_input_grad[2:4])
        dtable = _table_gradient(dadded, table, index) if ctx.needs_input_grad[1] else None
        return dqkv, dtable, dweight, dbias, None, None, None


def uses_kernel(x: Tensor) -> bool:
    """Whether torch has an attention kernel that takes a bias and its gradient without keeping probabilities."""
    return x.is_cuda


def split(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [windows, heads, tokens, size] as views of their concatenation."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def join(out: Tensor) -> Tensor:
    """Heads side by side: [windows, tokens, heads x size] of [windows, heads, tokens, size]."""
    return out.transpose(1, 2).flatten(2)


def score_bias(table: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
    """What is added to the scores [1 or windows of an image, heads, tokens, tokens]."""
    tokens = index.shape[0]
    bias = table[index.flatten()].T.reshape(1, -1, tokens, tokens)
    return bias if mask is None else bias + mask.unsqueeze(1)


def probabilities(q: Tensor, k: Tensor, added: Tensor) -> Tensor:
    """Softmax of the scores [windows, heads, tokens, tokens], computed in ``added``'s type or wider, in q's type."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores.to(torch.promote_types(scores.dtype, added.dtype))
    return (scores.view(-1, *added.shape) + added).softmax(-1).to(q.dtype).view_as(scores)


def kernel_attention(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    """Torch's attention. The windows of an image go to the heads, so that all images share one bias."""
    windows = added.shape[0]

    def grouped(x: Tensor) -> Tensor:
        return x.reshape(-1, windows * x.shape[1], *x.shape[2:])

    shared = added.to(q.dtype).flatten(0, 1).unsqueeze(0)
    return F.scaled_dot_product_attention(grouped(q), grouped(k), grouped(v), attn_mask=shared).reshape(q.shape)


def _gradients(q: Tensor, k: Tensor, v: Tensor, added: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The attention's output, and gradients of qkv and of what was added to the scores."""
    p = probabilities(q, k, added)
    dv = p.transpose(-2, -1) @ dout
    out = p @ v
    dscores = torch.ops.aten._softmax_backward_data(dout @ v.transpose(-2, -1), p, -1, p.dtype)
    dadded = dscores.view(-1, *added.shape).sum(0, dtype=added.dtype)
    scale = q.shape[-1] ** -0.5
    dq, dk = dscores @ (k * scale), dscores.transpose(-2, -1) @ (q * scale)
    return out, _joined(dq, dk, dv), dadded


def _kernel_gradients(q: Tensor, k: Tensor, v: Tensor, added: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_gradients`, by the kernel's own backward pass."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v, added)]
    with torch.enable_grad():
        out = kernel_attention(*inputs)
    dq, dk, dv, dadded = torch.autograd.grad(out, inputs, dout)
    return out.detach(), _joined(dq, dk, dv), dadded


def _joined(*parts: Tensor) -> Tensor:
    return torch.stack([x.transpose(1, 2) for x in parts], dim=2).flatten(2)


def _table_gradient(dadded: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Sum over the pairs of tokens that share an entry of the table; in a fixed order on every device."""
    pairs = dadded.sum(0).flatten(1).T.to(table.dtype)
    return torch.zeros_like(table).index_put_((index.flatten(),), pairs, accumulate=True)
