"""Losses beside those of predictors that look at no image: 1 is theirs, learning is below (F19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramflow.settings import TrainSettings
from ramflow.train.balance import negatives
from ramflow.train.baselines import constant_alignment_loss, constant_tag_loss


@dataclass(frozen=True)
class Baselines:
    """What each loss per image is without looking at the image."""

    tag: float
    """The best constant a tag, at the frequencies of the training split."""
    alignment: float
    """One constant for all captions."""
    distillation: float
    """The mean feature of the teacher."""

    def relative(self, values: Mapping[str, float]) -> dict[str, float | None]:
        """Each loss of a step as a share of its baseline; None where that is 0."""
        return {
            f"{name}_relative": values[f"loss_{name}"] / baseline if baseline else None
            for name, baseline in (
                ("tag", self.tag), ("alignment", self.alignment), ("distillation", self.distillation)
            )
        }  # fmt: skip


def baselines_of(
    frequencies: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_], settings: TrainSettings, mean_distance: float
) -> Baselines:
    """The baselines of a run.

    Args:
        frequencies: share of the training images that have each tag [tags].
        mask: true for tags that count in the loss [tags].
        settings: of the run.
        mean_distance: mean absolute distance of the teacher's features to their mean.
    """
    weight = negatives(settings.balance, settings.batch)
    return Baselines(
        constant_tag_loss(frequencies.clip(0, 1), mask), constant_alignment_loss(settings.batch, weight), mean_distance
    )
