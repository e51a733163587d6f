"""GPU cards: memory and peak rates, by the name that torch gives them.

Rates are the makers' figures for dense products (without structured sparsity) that accumulate in float32, at boost
clock. Memory is what torch reports as the card's total, which is less than what is printed on the box; makers of
servers differ by 0.2 GiB, the smaller figure is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ramflow.errors import UserError

Products = Literal["bfloat16", "tf32", "float32"]


@dataclass(frozen=True)
class Card:
    """One kind of card."""

    name: str
    memory: float
    """GiB, as torch reports it."""
    bfloat16: float
    """Peak FLOP/s of dense products, in units of 1e12; a multiply-add is two."""
    tf32: float
    float32: float
    bandwidth: float
    """Of its memory, GB/s."""

    def peak(self, products: Products) -> float:
        """FLOP/s of matrix products of a kind."""
        return 1e12 * {"bfloat16": self.bfloat16, "tf32": self.tf32, "float32": self.float32}[products]


CARDS: dict[str, Card] = {
    # NVIDIA A100 datasheet (June 2021): SXM; the PCIe cards have the same peaks and hold them for less long.
    "a100-40g": Card("A100 40 GB", 39.4, 312, 156, 19.5, 1555),
    "a100-80g": Card("A100 80 GB", 79.1, 312, 156, 19.5, 2039),
    # NVIDIA H100 Tensor Core GPU architecture whitepaper, table 2.
    "h100": Card("H100 SXM", 79.1, 989.4, 494.7, 66.9, 3352),
    "h100-pcie": Card("H100 PCIe", 79.1, 756, 378, 51.2, 2039),
    # NVIDIA H200 datasheet: the processor of the H100 SXM with more memory.
    "h200": Card("H200 SXM", 139.7, 989.4, 494.7, 66.9, 4800),
    # NVIDIA L40S datasheet.
    "l40s": Card("L40S", 44.3, 362, 183, 91.6, 864),
    # NVIDIA Ada GPU architecture whitepaper, appendix A.
    "rtx-4090": Card("RTX 4090", 23.6, 165.2, 82.6, 82.6, 1008),
    # NVIDIA Ampere GA102 GPU architecture whitepaper, tables 2 and 8.
    "rtx-3090": Card("RTX 3090", 23.6, 71, 35.6, 35.6, 936),
    "rtx-a6000": Card("RTX A6000", 47.4, 154.8, 77.4, 38.7, 768),
}

NAMES: tuple[tuple[str, str], ...] = (
    ("H100 PCIe", "h100-pcie"),
    ("H100", "h100"),
    ("H200", "h200"),
    ("L40S", "l40s"),
    ("RTX 4090", "rtx-4090"),
    ("RTX 3090", "rtx-3090"),
    ("RTX A6000", "rtx-a6000"),
)
"""What ``torch.cuda.get_device_name`` contains, first match first; the A100 is told by its memory."""


def card(key: str) -> Card:
    """The card of a key of :data:`CARDS`.

    Raises:
        UserError: there is none.
    """
    if key not in CARDS:
        raise UserError(f"card {key!r} is not known: one of {', '.join(CARDS)}")
    return CARDS[key]


def card_of(device_name: str, memory: float) -> Card | None:
    """The card that torch calls ``device_name`` with ``memory`` GiB in all, or None if the table lacks it."""
    if "A100" in device_name:
        return CARDS["a100-40g" if memory < 60 else "a100-80g"]
    return next((CARDS[key] for part, key in NAMES if part in device_name), None)
