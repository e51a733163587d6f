"""Copies of tensors in host memory as they are at one moment, made while training goes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Snapshot:
    """Named groups of tensors as they were at :meth:`take`; the next one uses the same memory again."""

    def __init__(self) -> None:
        self._buffers: dict[str, dict[str, Tensor]] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy them. From a GPU the copies are queued behind the work so far, and nothing is waited for."""
        before, self._buffers = self._buffers, {}
        on_gpu = False
        for group, tensors in groups.items():
            old = before.get(group, {})
            self._buffers[group] = {name: _copy(tensor.detach(), old.get(name)) for name, tensor in tensors.items()}
            on_gpu |= any(tensor.is_cuda for tensor in tensors.values())
        self._copied = None
        if on_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The copies by group and name, once they are whole; valid until the next :meth:`take`."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._buffers


def _copy(tensor: Tensor, buffer: Tensor | None) -> Tensor:
    if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return buffer.copy_(tensor, non_blocking=True)
