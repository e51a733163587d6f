"""The loss of very many queries, a slice of them at a time: forward and backward of a slice, then the next one.

Queries never see one another, so the loss is a sum over slices, and so is its gradient. Of a slice nothing is kept but
its share of the gradients: memory does not grow with the number of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ramflow.model.losses import Target, asymmetric_sum, asymmetric_sum_and_gradient

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Queries:
    """Queries to images, in slices, and what their logits should be."""

    shared: Callable[[torch.Tensor], list[torch.Tensor]]
    """What all slices need of image tokens [images, tokens, width]."""
    logits: Callable[[Tensors, int, int], torch.Tensor]
    """Logits [images, queries] of a slice, from the above, its start and its stop."""
    target: Target
    parameters: Tensors
    """All that has a gradient, beside the tokens."""
    size: int
    """Queries in a slice; 0: all in one."""

    def slices(self) -> Iterator[tuple[int, int]]:
        """Start and stop of each slice."""
        count = self.target.positive.shape[1]
        size = self.size or count
        return ((start, min(start + size, count)) for start in range(0, count, size))


def sliced_loss(queries: Queries, tokens: torch.Tensor) -> torch.Tensor:
    """Sum of the asymmetric loss over all queries, a float32 scalar; its gradient is computed at once where needed."""
    inputs = (tokens, *queries.parameters)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        function: Any = _SlicedLoss
        return function.apply(queries, *inputs)
    shared = queries.shared(tokens)
    losses = [asymmetric_sum(queries.logits(shared, *s), queries.target.columns(*s)) for s in queries.slices()]
    return torch.stack(losses).sum()


class _SlicedLoss(torch.autograd.Function):
    """Its forward computes the loss and all gradients, its backward multiplies them by the loss's own."""

    @staticmethod
    def forward(ctx: Any, queries: Queries, tokens: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        tokens = tokens.detach().requires_grad_(ctx.needs_input_grad[1])
        inputs = (tokens, *parameters)
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        with torch.enable_grad():
            shared = queries.shared(tokens)
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in shared]
        sums = Sums([*(leaf for leaf in leaves if leaf.requires_grad), *wanted])
        losses = [_slice(queries, leaves, sums, *s) for s in queries.slices()]
        roots = [tensor for tensor in shared if tensor.requires_grad]
        sums.add(*_reached(roots, sums.totals[: len(roots)]), wanted)
        gradients = iter(sums.totals[len(roots) :])
        ctx.save_for_backward(*(next(gradients) if tensor.requires_grad else None for tensor in inputs))
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> Any:
        needs = ctx.needs_input_grad[1:]
        pairs = zip(ctx.saved_tensors, needs, strict=True)
        return None, *(total * grad_outputs[0] if need and total is not None else None for total, need in pairs)


class Sums:
    """Gradients added up in float32, or in the wider type that a tensor has; None as long as there is none."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.totals: list[torch.Tensor | None] = [None] * len(tensors)

    def add(self, outputs: Tensors, gradients: Tensors, to: Tensors | None = None) -> None:
        """Add the gradients of ``outputs``, theirs being ``gradients``; ``to`` the last tensors or to all."""
        to = self.tensors if to is None else to
        like = [gradient.to(output.dtype) for output, gradient in zip(outputs, gradients, strict=True)]
        parts = torch.autograd.grad(outputs, to, like, allow_unused=True)
        for index, part in enumerate(parts, len(self.totals) - len(to)):
            total = self.totals[index]
            if part is None:
                continue
            if total is None:
                self.totals[index] = part.to(torch.promote_types(part.dtype, torch.float32), copy=True)
            else:
                total += part


def _reached(tensors: Tensors, gradients: Sequence[torch.Tensor | None]) -> tuple[Tensors, Tensors]:
    pairs = [(tensor, gradient) for tensor, gradient in zip(tensors, gradients, strict=True) if gradient is not None]
    return [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]


def _slice(queries: Queries, shared: Tensors, sums: Sums, start: int, stop: int) -> torch.Tensor:
    with torch.enable_grad():
        logits = queries.logits(shared, start, stop)
    loss, gradient = asymmetric_sum_and_gradient(logits.detach(), queries.target.columns(start, stop))
    sums.add([logits], [gradient])
    return loss
