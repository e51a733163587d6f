"""Weights of the losses: upstream's mix, a fixed one, and one that follows the gradients."""

import pytest

from ramflow.settings import BalanceSettings
from ramflow.train.balance import first_weights, negatives, rebalanced


def test_upstreams_mix_at_its_batch():
    """batch x (tag + alignment) + distillation, of losses per image, but for the common factor."""
    tag, alignment, distillation = first_weights(BalanceSettings(mode="upstream", batch=26))
    assert (tag, alignment) == (1, 1) and distillation == pytest.approx(1 / 26)


def test_fixed_weights_are_those_given_and_stay():
    settings = BalanceSettings(mode="fixed", tag=1.0, alignment=10.0, distillation=100.0)
    assert first_weights(settings) == (1, 10, 100)
    assert rebalanced(settings, (1, 10, 100), [1.0, 2.0, 3.0]) == (1, 10, 100)


def test_an_image_has_as_many_negatives_as_in_the_batch_that_is_imitated():
    settings = BalanceSettings(batch=52)
    assert negatives(settings, 52) == 1 and 415 * negatives(settings, 416) == pytest.approx(51)


def test_the_automatic_balance_makes_the_gradients_of_one_size_slowly():
    settings = BalanceSettings(mode="automatic", momentum=0.9)
    raw = (4.0, 0.5, 100.0)
    weights = first_weights(settings)
    for number in range(80):
        norms = [w * r for w, r in zip(weights, raw, strict=True)]
        before, weights = weights, rebalanced(settings, weights, norms)
        assert weights[0] == 1
        assert all(0.7 < new / old < 1.4 for new, old in zip(weights, before, strict=True)), number
    assert [w * r for w, r in zip(weights, raw, strict=True)] == pytest.approx([4, 4, 4], rel=0.01)


@pytest.mark.parametrize("norm", [0.0, float("nan"), float("inf")])
def test_a_measurement_that_is_none_moves_nothing(norm):
    settings = BalanceSettings(mode="automatic")
    weights = rebalanced(settings, (1.0, 2.0, 3.0), [1.0, norm, 1.0])
    assert weights[1] == 2.0 and weights[2] < 3.1
    assert rebalanced(settings, (1.0, 2.0, 3.0), [norm, 1.0, 1.0]) == (1.0, 2.0, 3.0)
