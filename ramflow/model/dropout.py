"""Dropout (JMLR 15, 2014) whose draws cost little on the CPU: 16 random bits a number instead of a Bernoulli draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 1 << 16
"""The rate is a multiple of 1 / LEVELS; what is kept is scaled by that rate, so that its expectation is the input."""


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """``x`` of any shape with each number 0 at ``rate``, else divided by what the rate leaves; ``x`` outside training.

    Draws are the default generator's.
    """
    if not training or rate == 0:
        return x
    return _Dropout.apply(x, rate) if x.device.type == "cpu" else F.dropout(x, rate)


class _Dropout(torch.autograd.Function):
    """Kept: one byte a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        dropped = min(round(rate * LEVELS), LEVELS - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - dropped)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.scale), None
