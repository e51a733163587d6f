"""A moving average of the weights, validated and kept beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """average = decay * average + (1 - decay) * weight, after every step, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin at the model's weights."""
        self.decay = decay
        self._weights: list[torch.Tensor] = list(model.parameters())
        self._names = [name for name, _ in model.named_parameters()]
        self._average = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        torch._foreach_lerp_(self._average, self._weights, 1 - self.decay)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The average by parameter name; not copies."""
        return dict(zip(self._names, self._average, strict=True))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the average for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._average, strict=True):
            weight.data, average.data = average.data, weight.data
