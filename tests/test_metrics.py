"""Metrics against cases worked by hand."""

import numpy as np
import pytest

from ramflow.metrics import (
    at_thresholds,
    average_precision,
    average_precisions,
    calibrate,
    mean_average_precision,
    mean_average_precision_public,
    pooled,
)


def test_average_precision_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_ties_do_not_depend_on_the_order_of_rows(seed):
    scores = np.array([0.5] * 6 + [0.9])
    targets = np.array([True, True, False, False, False, False, False])
    order = np.random.default_rng(seed).permutation(7)
    assert average_precision(scores[order], targets[order]) == pytest.approx(2 / 7)


def test_tags_without_positives_are_left_out_or_count_as_zero():
    scores = np.array([[0.9, 0.1], [0.1, 0.2]])
    ap = average_precisions(scores, np.array([[True, False], [False, False]]))
    assert mean_average_precision(ap) == 1.0
    assert mean_average_precision_public(ap) == 0.5


def test_no_positives_at_all_is_not_a_number():
    assert np.isnan(mean_average_precision(average_precisions(np.ones((2, 2)), np.zeros((2, 2), bool))))


def test_calibration_finds_the_best_f1_and_tags_with_few_positives_share_theirs():
    random = np.random.default_rng(0)
    targets = random.random((200, 6)) < 0.2
    targets[:, 4] = False
    targets[4:, 5] = False
    scores = (random.random((200, 6)) + 0.5 * targets) / 1.5
    thresholds = calibrate(scores, targets)
    best = at_thresholds(scores, targets, thresholds).f1[:4]
    shared = pooled(scores, targets, np.full(6, thresholds[4]))[2]
    for candidate in np.linspace(0, 1, 101):
        assert (at_thresholds(scores, targets, np.full(6, candidate)).f1[:4] <= best + 1e-12).all()
        assert pooled(scores, targets, np.full(6, candidate))[2] <= shared + 1e-12
    assert thresholds[5] == thresholds[4]


def test_calibration_with_ties_never_splits_equal_scores():
    scores = np.array([[0.6]] * 8 + [[0.2]])
    targets = np.array([[True]] * 5 + [[False]] * 4)
    threshold = calibrate(scores, targets)[0]
    assert 0.2 < threshold < 0.6


def test_pooled_by_hand():
    scores = np.array([[0.9, 0.9], [0.1, 0.9], [0.9, 0.1]])
    targets = np.array([[True, False], [False, True], [False, True]])
    assert pooled(scores, targets, np.full(2, 0.5)) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
