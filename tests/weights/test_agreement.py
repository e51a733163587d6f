"""The functional probe: a trained encoder sees that two views belong together, a random one hardly."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from ramflow.data.dataset import Dataset
from ramflow.weights.agreement import agreement, separation, views_of
from tests.weights.conftest import fresh


@pytest.fixture(scope="module")
def views(tiny_data):
    return views_of(Dataset(tiny_data), 64, 32)


def test_trained_and_random_encoders_part(trained, views):
    random = [agreement(fresh(seed), views) for seed in range(5)]
    assert agreement(trained, views) > 1.2 * max(random)


def test_views_are_the_same_every_time_and_two_crops_of_an_image(tiny_data, views):
    first, second = views
    assert first.shape == second.shape == (24, 3, 32, 32)
    assert not torch.equal(first, second)
    again = views_of(Dataset(tiny_data), 64, 32)
    assert all(torch.equal(one, other) for one, other in zip(views, again, strict=True))
    grey = [bool((image == image[:1]).all()) for image in second]
    assert grey[1::2] == [True] * 12
    assert not any(grey[0::2])


def test_images_are_spread_over_the_dataset_and_damaged_ones_left_out(pack_records, records, images_dir, tmp_path):
    (tmp_path / "shapes").mkdir()
    for path in (images_dir / "shapes").iterdir():
        (tmp_path / "shapes" / path.name).write_bytes(path.read_bytes())
    (tmp_path / records[0]["image_path"]).write_bytes(b"no image")
    dataset = Dataset(pack_records(records, images=tmp_path))
    assert len(views_of(dataset, 64, 32)[0]) == 23
    assert len(views_of(dataset, 8 + 1, 32)[0]) == 8


def test_a_wide_image_keeps_its_pixels(pack_records, records, images_dir, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 2), (10, 200, 30)).save(buffer, "PNG")
    (tmp_path / "shapes").mkdir()
    for record in records:
        (tmp_path / record["image_path"]).write_bytes(buffer.getvalue())
    first, _ = views_of(Dataset(pack_records(records, images=tmp_path)), 24, 32)
    assert torch.equal(first, torch.tensor([10, 200, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand_as(first))


def test_separation_is_large_for_equal_features_and_none_for_unrelated_ones():
    draw = torch.Generator().manual_seed(0)
    first, other = torch.randn(64, 32, generator=draw), torch.randn(64, 32, generator=draw)
    assert separation(first, first + 0.01 * other) > 3.5
    assert abs(separation(first, other)) < 0.6


def test_one_strong_direction_alone_does_not_decide():
    """Brightness: one number an image that both views share, in otherwise unrelated features."""
    draw = torch.Generator().manual_seed(0)
    brightness = 100 * torch.randn(64, 1, generator=draw).expand(64, 32)
    first, other = torch.randn(64, 32, generator=draw), torch.randn(64, 32, generator=draw)
    assert separation(first + brightness, other + brightness) < 1.5


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf")])
def test_constant_or_broken_features_score_nothing(value):
    features = torch.full((64, 32), value)
    assert separation(features, features) == 0.0
