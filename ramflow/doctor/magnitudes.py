"""What batch the losses of a fresh model imply.

The public code sums loss_tag and loss_alignment over the batch B. A fresh tagging head drowns its query in what it
reads from the image, so all its logits are about one number z (0 on average, within 1.75). Then, with k of T tags true
and p = sigmoid(z),

    loss_tag       = B (k ln(1/p) + (T - k) h(7))
    loss_alignment = B (ln(1/p) + (B - 1) h(4)),    h(gamma) = max(p - 0.05, 0)^gamma ln(1 / min(1.05 - p, 1))

where h is the asymmetric loss of a negative (arXiv 2009.14119) with clip 0.05. At z = 0, T = 4585
and k = 10 that is 17.15 B, and B ln 2 + 0.0245 B (B - 1). Two equations, two unknowns: B and z. Means over an epoch are
of a model that has learnt, and say nothing of B.
"""

from __future__ import annotations

import math

import numpy as np

from ramflow.doctor.series import Floats

CLIP = 0.05
TAG_GAMMA, ALIGNMENT_GAMMA = 7.0, 4.0
LOGITS = np.linspace(-1.75, 1.75, 1401)
"""Three deviations of what a fresh linear layer makes of a vector of LayerNorm."""
MAX_BATCH = 4096
TAGS_UNSURE = 0.15
"""The tags of one batch differ from those of the whole set by this share."""
TOLERANCE = 0.06
"""Of loss_alignment: logits of one image differ by about 0.06, those of two images by more. Measured with
heads of the real size from 14 seeds, at batches 8, 26 and 52: the range always held the truth."""

ROUGH = 0.05
"""Added to both ends: one number for all logits is an idealisation."""


def negative(gamma: float, logit: Floats) -> Floats:
    """Asymmetric loss of a negative with this logit."""
    not_positive = np.minimum(1 / (1 + np.exp(logit)) + CLIP, 1.0)
    return (1 - not_positive) ** gamma * -np.log(not_positive)


def tag_loss_per_image(logit: Floats, tags: int, positives: float) -> Floats:
    """loss_tag over the batch, every logit being ``logit``."""
    return positives * np.logaddexp(0.0, -logit) + (tags - positives) * negative(TAG_GAMMA, logit)


def alignment_loss_per_image(logit: Floats, batch: Floats) -> Floats:
    """loss_alignment over the batch, every logit being ``logit``."""
    return np.logaddexp(0.0, -logit) + (batch - 1) * negative(ALIGNMENT_GAMMA, logit)


def implied_batch(loss_tag: float, loss_alignment: float, tags: int, positives: float) -> tuple[int, int] | None:
    """The smallest and the largest batch that gives these two losses at initialisation; None: no batch does.

    Args:
        loss_tag: of the first batch of a run, summed over it.
        loss_alignment: the same.
        tags: length of the tag list.
        positives: mean number of tags an image.
    """
    found: list[Floats] = []
    for share in np.linspace(1 - TAGS_UNSURE, 1 + TAGS_UNSURE, 13):
        batch = loss_tag / tag_loss_per_image(LOGITS, tags, share * positives)
        error = np.abs(batch * alignment_loss_per_image(LOGITS, batch) / loss_alignment - 1)
        found.append(batch[(error < TOLERANCE) & (batch >= 1) & (batch <= MAX_BATCH)])
    fitting = np.concatenate(found)
    if not len(fitting):
        return None
    return max(1, math.floor((1 - ROUGH) * fitting.min())), math.ceil((1 + ROUGH) * fitting.max())
