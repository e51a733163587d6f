"""What a predictor gets that never looks at the image: the losses that a run is measured by, in numpy.

It says one logit a tag, or one for all captions: the one where training as it is done here comes to rest, so with
the focal weight held constant (:mod:`ramflow.model.losses`). A relative loss of 1 is this predictor's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CLIP = 0.05
TAG_GAMMA = 7.0
ALIGNMENT_GAMMA = 4.0
HALVINGS = 60

Floats = npt.NDArray[np.float64]


def constant_tag_loss(frequencies: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """Tag loss per image, summed over tags, of always saying the best trained constant for each tag.

    Args:
        frequencies: share of the training images that have the tag, 0 to 1 [tags].
        mask: false for tags whose loss does not count [tags].
    """
    positive = np.asarray(frequencies, np.float64)
    assert positive.min(initial=0) >= 0 and positive.max(initial=0) <= 1, "frequencies are shares"
    losses = _constant_loss(positive, 1 - positive, TAG_GAMMA)
    return float(losses[np.asarray(mask, bool)].sum())


def constant_alignment_loss(captions: int, negatives: float = 1.0) -> float:
    """Alignment loss per image of saying one constant for all captions, one of them the image's own.

    Args:
        captions: captions of the whole effective batch that an image is held against, its own included.
        negatives: weight of the negatives.
    """
    weights = np.array([1.0]), np.array([negatives * max(captions - 1, 0)])
    return float(_constant_loss(*weights, ALIGNMENT_GAMMA)[0])


def _constant_loss(positive: Floats, negative: Floats, gamma: float) -> Floats:
    """Loss of ``positive`` targets that hold and ``negative`` that do not, at the constant where the gradient is zero.

    With p the probability, the gradient is zero where negative (p - clip)^gamma p / (1 + clip - p) = positive: the
    left side grows with p, so halving finds it; without such a p below 1 training goes to 1.
    """
    low, high = np.full_like(positive, CLIP), np.ones_like(positive)
    for _ in range(HALVINGS):
        p = (low + high) / 2
        above = negative * (p - CLIP) ** gamma * p / (1 + CLIP - p) > positive
        low, high = np.where(above, low, p), np.where(above, p, high)
    p = np.where(positive > 0, (low + high) / 2, CLIP)
    return -positive * np.log(p) - negative * (p - CLIP) ** gamma * np.log(1 + CLIP - p)
