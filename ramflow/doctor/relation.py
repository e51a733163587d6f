"""How two encoders are related, matrix by matrix: does one descend from the other by training?

Training moves weights from where they started; what started elsewhere is unrelated, and the cosine of two unrelated
matrices of n entries with mean 0 is 0 within a few times 1 / sqrt(n).
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

CHANCE_DEVIATIONS = 6.0
MIN_COSINE = 0.05
"""Below this a matrix is called unrelated whatever its size. Training goes less far: 46,500 steps of AdamW at 1e-4 that
point nowhere move an entry by about 0.02, its own size, which leaves a cosine of about 0.7."""


@dataclass(frozen=True)
class Relation:
    """One matrix of a checkpoint beside the same of a weights file; ``distance`` is relative to the file's norm."""

    key: str
    cosine: float
    chance: float
    distance: float

    @property
    def related(self) -> bool:
        """The cosine is more than chance gives."""
        return self.cosine > max(MIN_COSINE, CHANCE_DEVIATIONS * self.chance)

    @property
    def equal(self) -> bool:
        """To the bit: nothing was trained here."""
        return self.distance == 0.0


def relations(checkpoint: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[Relation]:
    """Every matrix that both have in one shape, in the checkpoint's order. Buffers of indices are left out."""
    found = []
    for key, tensor in checkpoint.items():
        other = weights.get(key)
        if other is None or other.shape != tensor.shape or tensor.ndim < 2 or not tensor.is_floating_point():
            continue
        if key.endswith("attn_mask") or tensor.numel() < 64:
            continue
        a, b = tensor.flatten().float(), other.flatten().float()
        a_norm, b_norm = float(a.norm()), float(b.norm())
        if math.isfinite(a_norm * b_norm) and a_norm * b_norm > 0:
            cosine = float(a @ b) / (a_norm * b_norm)
            found.append(Relation(key, cosine, 1 / math.sqrt(a.numel()), float((a - b).norm()) / b_norm))
    return found


def stage_of(key: str) -> str:
    """Which part of a Swin a tensor belongs to."""
    if match := re.match(r"layers\.(\d+)\.", key):
        return f"stage {int(match[1]) + 1}"
    return "patch embedding" if key.startswith("patch_embed") else "last norm"


def by_stage(relations: list[Relation]) -> list[str]:
    """A line a stage: how many of its matrices are related, median cosine and distance."""
    stages: dict[str, list[Relation]] = {}
    for relation in relations:
        stages.setdefault(stage_of(relation.key), []).append(relation)
    return [
        f"{stage}: {sum(r.related for r in own)} of {len(own)} matrices related, cosine "
        f"{statistics.median(r.cosine for r in own):+.3f} (chance: 0 +- "
        f"{statistics.median(r.chance for r in own):.3f}), distance {statistics.median(r.distance for r in own):.2f}"
        for stage, own in stages.items()
    ]
