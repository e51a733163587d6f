"""How the model is computed: the mathematics is the same in every mode, memory and time are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Recompute = Literal["none", "selective", "blocks"]


@dataclass(frozen=True)
class Execution:
    """Choices that change what training keeps for the backward pass, never what it computes."""

    recompute: Recompute = "none"
    """What of the encoder is computed again in the backward pass: nothing, what costs little and holds much, or every
    block."""
    residual: torch.dtype = torch.float32
    """Type of the encoder's residual stream under autocast; outside autocast the stream has the input's type."""
    slice: int = 512
    """Tags that the head handles at a time; 0: all at once."""
    fold: bool = True
    """Whether the head's query projections are folded into its keys where that is cheaper."""
    fused: bool = True
    """Whether the lean autograd functions are used; else plain autograd, nothing recomputed, nothing sliced."""
