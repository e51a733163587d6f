"""Weights of the three losses, each of them per image (F15)."""

from __future__ import annotations

from collections.abc import Sequence

from ramflow.settings import BalanceSettings

Weights = tuple[float, float, float]
"""Of tags, alignment and distillation."""


def first_weights(settings: BalanceSettings) -> Weights:
    """The weights of step 1, and of every step unless the balance is automatic.

    Upstream adds tags and alignment summed over the images of a GPU, and the mean of the distillation: at ``batch``
    images that is ``batch`` times 1 : 1 : 1 / batch of losses per image. AdamW does not see the common factor, gradient
    clipping does.
    """
    if settings.mode == "upstream":
        return 1.0, 1.0, 1 / settings.batch
    return settings.tag, settings.alignment, settings.distillation


def negatives(settings: BalanceSettings, captions: int) -> float:
    """Weight of the alignment's negatives among ``captions``: an image has as much of them as in ``settings.batch``."""
    return (settings.batch - 1) / max(1, captions - 1)


def rebalanced(settings: BalanceSettings, weights: Weights, norms: Sequence[float]) -> Weights:
    """New weights after a measurement; they move slowly towards those that make all gradients as large as the tags'.

    Args:
        settings: with ``mode`` automatic; else nothing changes.
        weights: those that the measurement was made with.
        norms: of the gradient of each weighted loss on the encoder; one that is 0 or not finite leaves its weight.
    """
    if settings.mode != "automatic":
        return weights
    goal, *others = norms

    def moved(weight: float, norm: float) -> float:
        sound = 0 < norm < float("inf") and 0 < goal < float("inf")
        return weight * (goal / norm) ** (1 - settings.momentum) if sound else weight

    tag, alignment, distillation = weights
    return tag, moved(alignment, others[0]), moved(distillation, others[1])
