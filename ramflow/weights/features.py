"""Figures of the features of two views of each image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

IMAGES_A_DIRECTION = 4
TINY = 1e-12


def separation(first: Tensor, second: Tensor) -> float:
    """By how many standard deviations views of one image are closer than those of two; 0 for constant features.

    Features are whitened over their strongest directions, so that brightness alone does not decide.

    Args:
        first: features of the first views [images, width].
        second: those of the second views.
    """
    count = len(first)
    centred = torch.cat([first, second]).double()
    centred = centred - centred.mean(dim=0)
    if not centred.isfinite().all():
        return 0.0
    _, strengths, axes = torch.linalg.svd(centred, full_matrices=False)
    kept = min(count // IMAGES_A_DIRECTION, int((strengths > 1e-6 * strengths[0]).sum()))
    if kept < 2:
        return 0.0
    whitened = normalize(centred @ (axes[:kept].T / strengths[:kept]), dim=1)
    cosines = whitened[:count] @ whitened[count:].T
    others = cosines[~torch.eye(count, dtype=torch.bool)]
    return float((cosines.diag().mean() - others.mean()) / others.std())


def neighbours(features: Tensor) -> float:
    """Share of features whose nearest other one, by cosine, is of the same image [2 x images, width], float64.

    The first half is of the first views. By chance it is 1 / (2 images - 1).
    """
    centred = normalize(features - features.mean(dim=0), dim=1)
    cosines = (centred @ centred.T).fill_diagonal_(-2)
    own = torch.arange(len(features)).roll(len(features) // 2)
    return float((cosines.argmax(dim=1) == own).double().mean())


def directions(features: Tensor) -> float:
    """In how many directions features [2 x images, width] vary: their effective rank (Roy and Vetterli, 2007)."""
    strengths = torch.linalg.svdvals(features - features.mean(dim=0)).square()
    return float(torch.special.entr(strengths / strengths.sum()).sum().exp())


def same_class(chances: Tensor) -> float:
    """How many times as often two views of one image get one class as two of different images; 1 by chance.

    Args:
        chances: probabilities of the classes [2 x images, classes], the first half of the first views.
    """
    first, second = chances.chunk(2)
    joint = first @ second.T
    own = joint.diag()
    others = (joint.sum() - own.sum()) / (joint.numel() - len(own))
    return float(own.mean() / others.clamp_min(TINY))
