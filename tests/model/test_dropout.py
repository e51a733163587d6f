"""Dropout: its rate, its scale, its gradient and its draws."""

import pytest
import torch

from ramflow.model.dropout import LEVELS, dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    y = dropout(x, rate, training=True)
    assert float((y == 0).float().mean()) == pytest.approx(rate, abs=0.002)
    assert float(y.max()) == pytest.approx(1 / (1 - rate), rel=2 / LEVELS / (1 - rate))
    assert float(y.mean()) == pytest.approx(1, abs=0.01)


def test_no_order_in_what_is_dropped() -> None:
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(4, 1 << 18), 0.1, training=True) == 0).double() - 0.1
    for lag in (1, 2, 3, 4, 8, 64):
        assert abs(float((dropped[:, lag:] * dropped[:, :-lag]).mean())) < 5e-4, lag
    assert float(dropped.view(-1, 4).mean(dim=0).abs().max()) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_passes_where_the_number_passed(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 7, dtype=dtype, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    y.sum().backward()
    assert x.grad is not None and y.dtype == x.grad.dtype == dtype
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad * x, y.detach() + 0 * x)


def test_the_generator_decides() -> None:
    x = torch.randn(100)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(x, 0.5, training=True)) and not torch.equal(first, second)


def test_nothing_is_dropped_outside_training_or_at_rate_0() -> None:
    x = torch.randn(10)
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0, training=True) is x
