"""Multi-label metrics: average precision in both conventions, precision, recall, F1, threshold calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_POSITIVES = 5

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def average_precision(scores: npt.NDArray[np.floating], targets: Bools) -> float:
    """Non-interpolated average precision of one tag: the mean, over positives, of the precision at their score.

    Images with equal scores count as one group, so that the order of rows does not matter (with upstream's
    unstable sort ties give anything from 0.06 to 1.0). NaN without positives.

    Args:
        scores: [images].
        targets: true for positives [images].
    """
    if not targets.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], targets[order]
    last_of_group = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    found = np.cumsum(hits)[last_of_group]
    seen = np.flatnonzero(last_of_group) + 1
    return float(np.sum(np.diff(found, prepend=0) * found / seen) / hits.sum())


def average_precisions(scores: npt.NDArray[np.floating], targets: Bools) -> Floats:
    """Average precision a tag [tags] of scores and targets [images, tags]; NaN for tags without positives."""
    return np.array([average_precision(scores[:, t], targets[:, t]) for t in range(targets.shape[1])])


def mean_average_precision(ap: Floats) -> float:
    """Mean over the tags that have positives (F41); NaN when none has."""
    return float(np.nanmean(ap)) if not np.isnan(ap).all() else float("nan")


def mean_average_precision_public(ap: Floats) -> float:
    """The upstream convention: a tag without positives counts as 0."""
    return float(np.nan_to_num(ap).mean())


@dataclass(frozen=True)
class TagScores:
    """Precision, recall and F1 a tag [tags], 0 where nothing was predicted or nothing is there."""

    precision: Floats
    recall: Floats
    f1: Floats


def at_thresholds(scores: npt.NDArray[np.floating], targets: Bools, thresholds: Floats) -> TagScores:
    """Precision, recall and F1 a tag when every score above its tag's threshold is a prediction."""
    predicted = scores > thresholds
    hits = (predicted & targets).sum(axis=0)
    precision = _ratio(hits, predicted.sum(axis=0))
    recall = _ratio(hits, targets.sum(axis=0))
    return TagScores(precision, recall, _ratio(2 * precision * recall, precision + recall))


def pooled(scores: npt.NDArray[np.floating], targets: Bools, thresholds: Floats) -> tuple[float, float, float]:
    """Precision, recall and F1 of all predictions together (micro): a frequent tag weighs more than a rare one."""
    predicted = scores > thresholds
    hits, said, true = int((predicted & targets).sum()), int(predicted.sum()), int(targets.sum())
    return hits / max(said, 1), hits / max(true, 1), 2 * hits / max(said + true, 1)


def calibrate(scores: npt.NDArray[np.floating], targets: Bools) -> Floats:
    """The threshold a tag [tags] with the best F1 on these images (F42).

    A tag with fewer than five positives here, too few to go by, gets the threshold that is best for all tags together.
    Candidates are the middles between neighbouring scores; of equal F1 the highest threshold is taken.
    """
    shared = _best_threshold(scores.ravel(), targets.ravel())
    enough = targets.sum(axis=0) >= LEAST_POSITIVES
    return np.array([_best_threshold(scores[:, t], targets[:, t]) if ok else shared for t, ok in enumerate(enough)])


def _best_threshold(scores: npt.NDArray[np.floating], targets: Bools) -> float:
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order].astype(np.float64)
    hits = np.cumsum(targets[order])
    following = np.append(sorted_scores[1:], 0.0)
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
    f1[sorted_scores == following] = -1
    best = int(np.argmax(f1))
    return float(sorted_scores[best] + following[best]) / 2


def _ratio(over: npt.NDArray[np.generic], under: npt.NDArray[np.generic]) -> Floats:
    result: Floats = np.divide(over, under, out=np.zeros(len(over)), where=under != 0)
    return result
