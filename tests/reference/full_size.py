"""``python -m tests.reference.full_size``: ours against the plain model at full size (Swin-L, 4585 x 51, batch 2).

Prints the relative differences of losses, logits and gradients, in float32; takes about 10 GB and a minute or two.
Returns 1 where losses or logits differ by more than 1e-5, or a gradient by more than 1e-4.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from benchmarks.training_step import STEP_BATCH, data, models

TOLERANCE = {"losses": 1e-5, "logits": 1e-5, "gradients": 1e-4}
ALL_ZERO = "attention.key.bias"
"""A constant added to every key changes no attention: this gradient is rounding on both sides."""


def main() -> int:
    """Compare, print, judge."""
    ours, plain = models(full=True, dropout=0.0)
    images, wanted, batch = data(ours, STEP_BATCH)
    mask = torch.ones(len(ours.embeddings), dtype=torch.bool)
    losses = ours.losses(ours.tokens(images), wanted, mask)
    actual = (losses.tag, losses.alignment, losses.distillation)
    torch.stack(actual).sum().backward()
    expected = plain.losses(plain.tokens(images), batch)
    torch.stack(expected).sum().backward()
    found = {
        "losses": max(abs(a.item() / e.item() - 1) for a, e in zip(actual, expected, strict=True)),
        "gradients": max(_gradients(ours.named_parameters(), dict(plain.named_parameters())).items(), key=_second),
    }
    with torch.no_grad():
        found["logits"] = difference(ours(images), plain(images))
    figures = {name: value[1] if isinstance(value, tuple) else value for name, value in found.items()}
    for name, value in found.items():
        print(f"{name}: {value}, at most {TOLERANCE[name]}")
    return int(any(figures[name] > most for name, most in TOLERANCE.items()))


def difference(a: Tensor, b: Tensor) -> float:
    """Norm of the difference as a share of the norm."""
    return ((a - b).norm() / b.norm()).item()


def _gradients(ours: Iterable[tuple[str, Tensor]], plain: Mapping[str, Tensor]) -> dict[str, float]:
    pairs = ((name, parameter.grad, plain[name].grad) for name, parameter in ours if not name.endswith(ALL_ZERO))
    return {name: difference(a, b) for name, a, b in pairs if a is not None and b is not None}


def _second(item: tuple[str, float]) -> float:
    return item[1]


if __name__ == "__main__":
    sys.exit(main())
