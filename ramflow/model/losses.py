"""The losses of RAM++, each normalised per image, always in float32 (F15, F22)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

TAG_GAMMA_NEGATIVE = 7.0
ALIGNMENT_GAMMA_NEGATIVE = 4.0
CLIP = 0.05


@dataclass(frozen=True)
class Losses:
    """The three losses of a batch, per image: sums over tags and captions, a mean over feature dimensions."""

    tag: torch.Tensor
    alignment: torch.Tensor
    distillation: torch.Tensor


def asymmetric_loss(logits: torch.Tensor, targets: torch.Tensor, gamma_negative: float) -> torch.Tensor:
    """Asymmetric loss of every element (arXiv 2009.14119, equations 5 to 7), with gamma_positive 0 and clip 0.05.

    The focal weight is a constant to the gradient, and for negatives is taken of the shifted probability.

    Args:
        logits: any shape, any precision.
        targets: the same shape, true for positives.
        gamma_negative: focusing of negatives.
    """
    logits = logits.float()
    not_positive = (torch.sigmoid(-logits) + CLIP).clamp(max=1)
    weight = (1 - not_positive).pow(gamma_negative).detach()
    return torch.where(targets, -F.logsigmoid(logits), -weight * not_positive.log())


def tag_loss(logits: torch.Tensor, targets: torch.Tensor, tag_mask: torch.Tensor) -> torch.Tensor:
    """Tag loss per image: the sum over tags, without those that ``tag_mask`` [tags] leaves out (F09)."""
    losses = asymmetric_loss(logits, targets, TAG_GAMMA_NEGATIVE)
    return (losses * tag_mask).sum() / len(logits)


def same_caption(captions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """True [batch, batch] where two images have the same caption vector, and each has one (F14)."""
    equal = (captions[:, None] == captions[None]).all(dim=-1)
    return equal & present[:, None] & present[None]


def alignment_loss(logits: torch.Tensor, captions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Alignment loss per image: every image against every caption of the batch; equal captions are positives.

    Args:
        logits: [batch, batch], row: image, column: caption.
        captions: caption vectors [batch, width].
        present: false where an image has no caption [batch]; its row and column do not count.
    """
    losses = asymmetric_loss(logits, same_caption(captions, present), ALIGNMENT_GAMMA_NEGATIVE)
    return (losses * (present[:, None] & present[None])).sum() / len(logits)


def distillation_loss(image: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the class token and the CLIP image feature, both [batch, width], not normalised."""
    return F.l1_loss(image.float(), teacher.float())
