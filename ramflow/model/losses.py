"""The losses of RAM++: sums over images, always in float32 at least (F15, F22).

Whoever adds them up divides by the number of images that they are sums of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

TAG_GAMMA_NEGATIVE = 7.0
ALIGNMENT_GAMMA_NEGATIVE = 4.0
CLIP = 0.05


@dataclass(frozen=True)
class Losses:
    """The three losses, float32 scalars: sums over images, of tags and captions too; of features it is the mean."""

    tag: torch.Tensor
    alignment: torch.Tensor
    distillation: torch.Tensor


@dataclass(frozen=True)
class Wanted:
    """What images should give. Captions are those of the whole effective batch, images may be a part of it."""

    targets: torch.Tensor
    """True where an image has a tag [images, tags]."""
    teacher: torch.Tensor
    """CLIP image features of the same crops [images, width]."""
    valid: torch.Tensor
    """False for a placeholder, which counts nowhere [images]."""
    caption_ids: torch.Tensor
    """Of the caption of each image, int64 [images]; equal numbers are equal captions, 0 is none."""
    captions: torch.Tensor
    """Caption vectors of the whole effective batch [captions, width]."""
    ids: torch.Tensor
    """Of each of them, int64 [captions]; 0: there is none, it counts nowhere."""


@dataclass(frozen=True)
class Target:
    """What logits [images, queries] should be, and how errors count."""

    positive: torch.Tensor
    """True for positives [images, queries]."""
    counts: torch.Tensor
    """False where the loss is zero, and its gradient exactly [images, queries]."""
    gamma_negative: float
    """Focusing of negatives."""
    floor: torch.Tensor | None = None
    """Target of a query where it is not positive [queries]; nothing: 0."""
    negatives: float | torch.Tensor = 1.0
    """Weight of the negatives' part."""

    def columns(self, start: int, stop: int) -> Target:
        """The same for some of the queries."""
        floor = None if self.floor is None else self.floor[start:stop]
        return replace(self, positive=self.positive[:, start:stop], counts=self.counts[:, start:stop], floor=floor)

    def mix(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """Of what a positive and a negative have [images, queries], what counts."""
        negative = negative * self.negatives
        otherwise = negative if self.floor is None else torch.lerp(negative, positive, self.floor.to(negative))
        return torch.where(self.counts, torch.where(self.positive, positive, otherwise), 0.0)


def tag_target(wanted: Wanted, tag_mask: torch.Tensor, floor: torch.Tensor | None = None) -> Target:
    """The tags of images; those that ``tag_mask`` [tags] leaves out do not count (F09)."""
    counts = wanted.valid[:, None] & tag_mask[None]
    return Target(wanted.targets, counts, TAG_GAMMA_NEGATIVE, floor)


def alignment_target(wanted: Wanted, negatives: float | torch.Tensor = 1.0) -> Target:
    """The captions of images: equal captions are positives (F14), and where there is none, nothing counts."""
    images = torch.where(wanted.valid, wanted.caption_ids, 0)
    counts = (images != 0)[:, None] & (wanted.ids != 0)[None]
    return Target(images[:, None] == wanted.ids[None], counts, ALIGNMENT_GAMMA_NEGATIVE, negatives=negatives)


def asymmetric_loss(logits: torch.Tensor, targets: torch.Tensor, gamma_negative: float) -> torch.Tensor:
    """Asymmetric loss of every element (arXiv 2009.14119, equations 5 to 7), with gamma_positive 0 and clip 0.05.

    The focal weight is a constant to the gradient, and for negatives is taken of the shifted probability.

    Args:
        logits: any shape, any precision.
        targets: the same shape, true for positives.
        gamma_negative: focusing of negatives.
    """
    return torch.where(targets, *_parts(_wide(logits), gamma_negative))


def asymmetric_sum(logits: torch.Tensor, target: Target) -> torch.Tensor:
    """Sum of the asymmetric loss over logits [images, queries]."""
    return target.mix(*_parts(_wide(logits), target.gamma_negative)).sum()


def asymmetric_sum_and_gradient(logits: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the asymmetric loss, and its gradient with respect to the logits, in their type [images, queries]."""
    wide = _wide(logits)
    p = torch.sigmoid(wide)
    not_positive = (torch.sigmoid(-wide) + CLIP).clamp_(max=1)
    weight = (1 - not_positive).pow_(target.gamma_negative)
    loss = target.mix(-F.logsigmoid(wide), -weight * not_positive.log()).sum()
    gradient = target.mix(p - 1, weight.mul_(p).mul_(1 - p).div_(not_positive))
    return loss, gradient.to(logits.dtype)


def tag_loss(logits: torch.Tensor, targets: torch.Tensor, tag_mask: torch.Tensor) -> torch.Tensor:
    """Tag loss per image: the sum over tags, without those that ``tag_mask`` [tags] leaves out (F09)."""
    losses = asymmetric_loss(logits, targets, TAG_GAMMA_NEGATIVE)
    return (losses * tag_mask).sum() / len(logits)


def distillation_sum(image: torch.Tensor, teacher: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of class token and CLIP image feature, summed over valid images.

    Args:
        image: class tokens [images, width], not normalised.
        teacher: CLIP image features [images, width], not normalised.
        valid: false for images that do not count [images].
    """
    distance = (_wide(image) - _wide(teacher)).abs().mean(dim=-1)
    return torch.where(valid, distance, 0.0).sum()


def _parts(logits: torch.Tensor, gamma_negative: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of every logit if it is a positive, and if it is a negative."""
    not_positive = (torch.sigmoid(-logits) + CLIP).clamp(max=1)
    weight = (1 - not_positive).pow(gamma_negative).detach()
    return -F.logsigmoid(logits), -weight * not_positive.log()


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32, or in the wider type that it has."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
