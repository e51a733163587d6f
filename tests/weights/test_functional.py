"""The functional probe: an encoder that was trained tells images apart and views of one not; a random one hardly."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from ramflow.data.dataset import Dataset
from ramflow.model.encoder import Swin
from ramflow.settings import VerifySettings
from ramflow.weights.features import directions, neighbours, same_class, separation
from ramflow.weights.functional import Functional, figures, functional_checks, look_at_images, views_of
from tests.weights.conftest import fresh

ROOT = Path(__file__).parents[2]
RANDOM = Functional(64, 0, 1.0, 0.125, 2.7, 0.8, 1.1, 0.015, True)
PRETRAINED = Functional(64, 0, 2.9, 0.445, 16.1, 2.5, 5.4, 0.26, True)
SETTINGS = VerifySettings()


def failed(loaded, start, settings=SETTINGS):
    return {c.id.removeprefix("weights.") for c in functional_checks(loaded, start, settings) if not c.passed}


@pytest.fixture(scope="module")
def views(tiny_data):
    return views_of(Dataset(tiny_data), 64, 32)


def test_trained_and_random_encoders_part(trained, views):
    random = [look_at_images(fresh(seed), views) for seed in range(5)]
    assert look_at_images(trained, views).agreement > 1.2 * max(seen.agreement for seen in random)
    assert all("agreement" in failed(other, random[0]) for other in random)


def test_the_class_head_knows_its_encoder(trained, views):
    """A head fitted to the trained encoder's features of the six kinds of pictures."""
    kinds = torch.nn.functional.one_hot(torch.arange(24) % 6).float()
    with torch.inference_mode():
        pixels = (views[0].float() / 255 - 0.45) / 0.225
        features = trained(pixels)[:, 0]
    head = (20 * torch.linalg.lstsq(features, kinds - 1 / 6).solution.T.contiguous(), torch.zeros(6))
    loaded, random = (look_at_images(encoder, views, head) for encoder in (trained, fresh(1)))
    assert loaded.same_class > 2 * random.same_class
    assert 0 < random.confidence <= 1


@pytest.fixture(scope="module")
def sample():
    """The sample's Swin: its state, its class head, and 64 views of the sample's pictures."""
    if not (ROOT / "data" / "dataset.json").is_file():
        pytest.skip("no data/: `make data` fetches the sample")
    state = {key: tensor.float() for key, tensor in load_file(ROOT / "sample/models/swin/model.safetensors").items()}
    head = state.pop("head.fc.weight"), state.pop("head.fc.bias")
    return state, head, views_of(Dataset(ROOT / "data"), 64, 128)


def sample_encoder(seed=0):
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["verify"]
    torch.manual_seed(seed)
    return Swin(section["encoder"], section["encoder_options"]).eval()


def only(*parts):
    return lambda key, tensor, start: tensor if key.startswith(parts) else start


def shuffled(key, tensor, start):
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))
    return tensor.flatten()[order].view_as(tensor)


ALL = {"agreement", "neighbours", "variance", "class_head"}
REFUSING = {"agreement", "class_head"}
VARIANTS = {
    "whole": (lambda key, tensor, start: tensor, set(), set()),
    "random": (lambda key, tensor, start: start, ALL, ALL),
    "shuffled": (shuffled, ALL, ALL),
    "first half": (only("patch_embed", "layers.0", "layers.1"), REFUSING, ALL),
    "last half": (only("layers.2", "layers.3", "norm"), REFUSING, ALL),
}


@pytest.mark.parametrize(("choose", "least", "most"), VARIANTS.values(), ids=VARIANTS)
def test_the_sample_swin_is_told_from_what_is_left_of_it(sample, sample_random, choose, least, most):
    """A load that skips keys leaves part of the encoder random: seen without looking at a single key."""
    state, head, views = sample
    encoder = sample_encoder(1)
    own = encoder.swin.state_dict()
    encoder.swin.load_state_dict({key: choose(key, tensor, own[key]) for key, tensor in state.items()}, strict=True)
    assert least <= failed(look_at_images(encoder, views, head), sample_random) <= most


@pytest.fixture(scope="module")
def sample_random(sample):
    return look_at_images(sample_encoder(0), sample[2], sample[1])


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


def test_neighbours_directions_and_classes_of_features_made_by_hand():
    draw = torch.Generator().manual_seed(0)
    first = torch.linalg.qr(torch.randn(64, 16, generator=draw).double()).Q
    noise = torch.randn(64, 16, generator=draw).double()
    assert neighbours(torch.cat([first, first + 1e-3 * noise])) == 1.0
    assert neighbours(torch.cat([first, noise])) < 0.1
    assert directions(torch.cat([first - first.mean(0), first.mean(0) - first])) == pytest.approx(16, abs=0.5)
    assert directions(first[:, :1] @ first[:1]) == pytest.approx(1)
    certain = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    assert same_class(0.9 * certain + 0.1 / 8) > 5
    assert same_class(torch.full((16, 8), 1 / 8)) == pytest.approx(1)
    assert same_class(torch.cat([certain[:8], certain[:8].roll(1, 0)])) == 0
    assert same_class(certain) < float("inf")


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf")])
def test_constant_or_broken_features_score_nothing(value):
    features = torch.full((64, 32), value)
    assert separation(features, features) == 0.0


@pytest.mark.parametrize(
    ("key", "value", "answer"),
    [
        ("norm.weight", float("nan"), "features of 48 of 48 views are NaN or infinite: fetch the file again"),
        ("norm.weight", float("inf"), "features of 48 of 48 views are NaN or infinite: fetch the file again"),
        ("norm.weight", 0.0, "features are the same for every image: fetch the file again"),
        ("norm.weight", 1e30, "features of 48 views are finite and differ"),
    ],
)
def test_a_dead_encoder_is_a_clear_no_in_plain_json(views, key, value, answer):
    encoder = fresh(1)
    encoder.swin.get_parameter(key).data.fill_(value)
    seen, start = look_at_images(encoder, views), look_at_images(fresh(0), views)
    check = functional_checks(seen, start, SETTINGS)[0]
    assert (check.id, check.message) == ("weights.features", answer)
    assert check.passed == (check.count == 0) == ("differ" in answer)
    json.dumps(figures(seen, start), allow_nan=False)


def test_images_that_are_all_alike_are_not_the_encoders_fault(views):
    same = tuple(view[:1].expand(24, -1, -1, -1).contiguous() for view in (views[0], views[0]))
    seen = look_at_images(fresh(0), same)
    assert "with a fresh encoder, too: give verify other images" in functional_checks(seen, seen, SETTINGS)[0].message


def test_every_figure_is_a_gate():
    assert failed(PRETRAINED, RANDOM) == set()
    for name, gate in (("agreement", "agreement"), ("neighbours", "neighbours"), ("directions", "variance"),
                       ("same_class", "class_head")):  # fmt: skip
        assert failed(replace(PRETRAINED, **{name: 1.5 * getattr(RANDOM, name)}), RANDOM) == {gate}
    assert failed(RANDOM, RANDOM, VerifySettings(min_probe_ratio=0.0)) == set()


def test_one_figure_that_is_reached_speaks_for_the_encoder():
    def refused(seen):
        return {c.id for c in functional_checks(seen, RANDOM, SETTINGS) if c.severity == "error" and not c.passed}

    assert refused(RANDOM) == {"weights.agreement", "weights.class_head"}
    assert refused(replace(RANDOM, directions=3 * RANDOM.directions)) == set()
    assert refused(replace(RANDOM, agreement=3 * RANDOM.agreement)) == set()


def test_few_images_warn_and_do_not_refuse():
    few = [c.severity for c in functional_checks(replace(RANDOM, images=31), RANDOM, SETTINGS)]
    many = [c.severity for c in functional_checks(replace(RANDOM, images=32), RANDOM, SETTINGS)]
    assert few == ["error", "warning", "warning", "warning", "warning"]
    assert many == ["error", "error", "warning", "warning", "error"]


def test_a_head_that_was_never_trained_says_nothing():
    checks = functional_checks(replace(PRETRAINED, same_class=1.0, head_trained=False), RANDOM, SETTINGS)
    assert (checks[-1].severity, checks[-1].message) == ("info", "the file's class head looks untrained")
    assert len(functional_checks(replace(PRETRAINED, same_class=None), RANDOM, SETTINGS)) == 4


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ((torch.ones(3, 16), torch.ones(3)), None),
        ((torch.ones(1, 32), torch.ones(1)), None),
        ((torch.ones(3, 32), torch.ones(4)), None),
        ((torch.full((3, 32), float("nan")), torch.ones(3)), 0.0),
        ((torch.full((3, 32), 3e38), torch.tensor([0.0, 3e38, -3e38])), 1.0),
    ],
    ids=["width", "one class", "bias", "nan", "huge"],
)
def test_a_head_that_is_none_does_no_harm(views, head, found):
    seen = look_at_images(fresh(0), views, head)
    assert seen.same_class == (found if found is None else pytest.approx(found, abs=0.5)) and not seen.head_trained
    json.dumps(figures(seen, seen), allow_nan=False)
    assert "class_head" not in failed(seen, seen)


def test_figures_of_chance_do_not_make_a_ratio_large():
    nothing = replace(RANDOM, agreement=-0.01, neighbours=0.0, directions=1.0)
    assert failed(replace(nothing, agreement=0.1), nothing) == ALL


def test_figures_name_both_encoders():
    found = figures(PRETRAINED, RANDOM)
    assert (found["agreement"], found["agreement_fresh"]) == (2.9, 1.0)
    assert found["ratio"] == pytest.approx(2.9)
    assert {"neighbours", "directions_fresh", "variance", "same_class", "confidence_fresh"} <= set(found)
    assert "same_class" not in figures(replace(PRETRAINED, same_class=None), RANDOM)
