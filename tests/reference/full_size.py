"""``python -m tests.reference.full_size``: ours against the plain model at full size (Swin-L, 4585 x 51, batch 2).

Prints the relative differences of losses, logits and gradients; takes about 14 GB and two minutes. Returns 1 where
losses or logits differ by more than 1e-5, in float32, or a gradient by more than 1e-4, in double precision. In float32
a gradient is judged by how far it is from double precision's: ours no more than 1e-4, or than twice what rounding does
to the plain one (a ReLU near to zero switches, terms of a sum cancel).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.training_step import STEP_BATCH, data, models
from ramflow.model.losses import Wanted
from ramflow.model.ram_plus import RamPlus
from tests.reference.ram_plus import Batch, PlainRamPlus

Gradients = dict[str, Tensor]
TOLERANCE = {"losses": 1e-5, "logits": 1e-5, "gradients": 1e-4}
ALL_ZERO = "attention.key.bias"
"""A constant added to every key changes no attention: this gradient is rounding on both sides."""


def main() -> int:
    """Compare, print, judge."""
    ours, plain = models(full=True, dropout=0.0)
    images, wanted, batch = data(ours, STEP_BATCH)
    mask = torch.ones(len(ours.embeddings), dtype=torch.bool)
    with torch.no_grad():
        found = {"logits": difference(ours(images), plain(images))}
    found["losses"], rounded = _pass(ours, plain, images, wanted, batch, mask)
    print(f"in float32, gradients: {_worst(_differences(*rounded))}")
    plain.embeddings = plain.embeddings.double()
    batch.teacher, batch.captions = batch.teacher.double(), batch.captions.double()
    wanted = replace(wanted, teacher=batch.teacher, captions=batch.captions)
    _, exact = _pass(ours.double(), plain.double(), images.double(), wanted, batch, mask)
    found["gradients"] = max(_differences(*exact).values())
    print(f"in double precision, gradients: {_worst(_differences(*exact))}")
    mine, theirs = (_differences(gradients, exact[1]) for gradients in rounded)
    print(f"ours in float32, from double precision: {_worst(mine)}")
    print(f"the plain one in float32, from double precision: {_worst(theirs)}")
    allowed = max(TOLERANCE["gradients"], 2 * max(theirs.values()))
    further = [name for name, value in mine.items() if value > allowed]
    print(f"further from double precision than rounding explains: {further or 'none'}")
    for name, value in found.items():
        print(f"{name}: {value:.2g}, at most {TOLERANCE[name]:g}")
    return int(bool(further) or any(not found[name] <= most for name, most in TOLERANCE.items()))


def _pass(
    ours: RamPlus, plain: PlainRamPlus, images: Tensor, wanted: Wanted, batch: Batch, mask: Tensor
) -> tuple[float, tuple[Gradients, Gradients]]:
    """Largest difference of a loss; our gradient and the plain one of each parameter."""
    ours.zero_grad()
    plain.zero_grad()
    losses = ours.losses(ours.tokens(images), wanted, mask)
    actual = (losses.tag, losses.alignment, losses.distillation)
    torch.stack(actual).sum().backward()
    expected = plain.losses(plain.tokens(images), batch)
    torch.stack(expected).sum().backward()
    gradients = _gradients(ours.named_parameters()), _gradients(plain.named_parameters())
    return max(abs(a.item() / e.item() - 1) for a, e in zip(actual, expected, strict=True)), gradients


def _worst(differences: Mapping[str, float]) -> str:
    worst = sorted(differences.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {value:.2g}" for name, value in worst)


def difference(a: Tensor, b: Tensor) -> float:
    """Norm of the difference as a share of the norm."""
    return ((a - b).norm() / b.norm()).item()


def _gradients(parameters: Iterable[tuple[str, Tensor]]) -> Gradients:
    named = ((name, parameter.grad) for name, parameter in parameters if not name.endswith(ALL_ZERO))
    return {name: gradient for name, gradient in named if gradient is not None}


def _differences(ours: Gradients, plain: Gradients) -> dict[str, float]:
    assert ours.keys() == plain.keys()
    return {name: difference(gradient, plain[name]) for name, gradient in ours.items()}


if __name__ == "__main__":
    sys.exit(main())
