"""Statistics that tell trained tensors from random and dead ones."""

from __future__ import annotations

import pytest
import torch

from ramflow.weights.numbers import STANDS_OUT, Numbers, look, spectral_excess
from tests.weights.conftest import fresh

SHAPES = [(64, 64), (96, 3, 4, 4), (1536, 384), (49, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "fill",
    [
        torch.nn.init.normal_,
        torch.nn.init.uniform_,
        torch.nn.init.trunc_normal_,
        torch.nn.init.kaiming_uniform_,
        torch.nn.init.xavier_normal_,
        torch.nn.init.orthogonal_,
    ],
)
def test_no_initialisation_stands_out(shape, fill):
    torch.manual_seed(0)
    assert spectral_excess(fill(torch.empty(shape))) < STANDS_OUT


@pytest.mark.parametrize("shape", [(64, 64), (1536, 384), (3072, 768)], ids=str)
def test_a_faint_direction_in_noise_stands_out(shape):
    """A rank-one part of a third of the noise's energy in a row, as a little training adds."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=draw)
    learnt = torch.randn(shape[0], 1, generator=draw) @ torch.randn(1, shape[1], generator=draw)
    assert spectral_excess(0.02 * (noise + 0.5 * learnt)) > STANDS_OUT


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan"), float("inf"), 3e38])
def test_a_matrix_of_one_value_has_no_direction(value):
    assert spectral_excess(torch.full((8, 8), value)) == 0.0


def test_the_scale_and_mean_of_the_entries_do_not_matter():
    matrix = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    assert spectral_excess(matrix) == pytest.approx(spectral_excess(7 + 0.01 * matrix), rel=1e-3)


def test_look_tells_fresh_from_trained(trained):
    start = fresh(1).swin.state_dict()
    random = look(fresh(2).swin.state_dict(), start)
    assert len(random.random) == random.matrices
    assert {"norm.weight", "layers.0.blocks.0.mlp.fc1.bias"} <= set(random.untouched)
    learnt = look(trained.swin.state_dict(), start)
    assert len(learnt.random) < 0.4 * learnt.matrices
    assert not (learnt.untouched or learnt.constant or learnt.not_finite)


def test_distance_is_relative_to_the_fresh_norm():
    start = fresh(1).swin.state_dict()
    assert look(start, start).distance == 0.0
    assert look({key: 3 * tensor for key, tensor in start.items()}, start).distance == pytest.approx(2.0)


class ReadOnce(dict):
    """Tensors of a large file: each read is time."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.read = []

    def __getitem__(self, key):
        self.read.append(key)
        return super().__getitem__(key)


def test_every_tensor_is_read_once(trained):
    state = ReadOnce(trained.swin.state_dict())
    look(state, fresh(1).swin.state_dict())
    assert state.read == list(state)


def test_it_is_built_a_tensor_at_a_time(trained):
    start, seen = fresh(1).swin.state_dict(), Numbers()
    for key, tensor in trained.swin.state_dict().items():
        seen.add(key, tensor, start[key])
    assert seen == look(trained.swin.state_dict(), start)


def test_the_largest_numbers_are_a_finite_distance_away():
    seen = look({"a.weight": torch.full((4, 4), 3e38)}, {"a.weight": torch.ones(4, 4)})
    assert seen.constant == ["a.weight"] and seen.distance == pytest.approx(3e38)
