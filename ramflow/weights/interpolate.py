"""Position tables of another window, by the published interpolation, when asked for.

Swin (arXiv 2103.14030, section 3.2): a model is fine-tuned with another window from the bicubic interpolation of its
learnt relative position biases; the published code resizes each head's table of (2 w - 1) x (2 w - 1) entries.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

METHOD = "bicubic"
SOURCE = "arXiv 2103.14030, section 3.2"


def window_of(entries: int) -> int | None:
    """The window of a position table with so many entries, (2 w - 1) squared; nothing for another number."""
    side = math.isqrt(entries)
    return (side + 1) // 2 if side * side == entries and side % 2 else None


def resize_table(table: Tensor, window: int) -> Tensor:
    """A position table [(2 w - 1) squared, heads] for another window, float32."""
    old, new = math.isqrt(table.shape[0]), 2 * window - 1
    grid = table.float().T.reshape(1, -1, old, old)
    return functional.interpolate(grid, (new, new), mode=METHOD, align_corners=False)[0].flatten(1).T.contiguous()
