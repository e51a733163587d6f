"""Going on from an earlier model: all but its encoder, to the bit, or nothing and one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramflow import storage
from ramflow.errors import UserError
from ramflow.model.ram_plus import RamPlus
from ramflow.model.start_from import load_rest
from ramflow.settings import HeadSettings
from ramflow.weights.upstream import upstream_state, write_ram_plus
from tests.weights.conftest import fresh
from tests.weights.test_upstream import HEAD, save_trained, tiny

PARAMETERS = 2 + 1 + 2 + 2 + 2 * 16
"""Of the image projection, the scale, the query projection, the logit, and two layers."""


def another(head: HeadSettings = HEAD, width: int = 8) -> RamPlus:
    """A model of other weights, and of another tag list."""
    encoder = fresh(9)
    embeddings = torch.nn.functional.normalize(torch.randn(4, 2, width), dim=-1)
    return RamPlus(encoder, head, embeddings, torch.ones(4, 2, dtype=torch.bool))


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def earlier(tmp_path):
    """The earlier model, and every form of it: what train writes, its parts, and a public checkpoint."""
    model = tiny()
    save_trained(tmp_path, model)
    for name in ("public.pth", "public.safetensors"):
        write_ram_plus(model, tmp_path / name)
    return model


SOURCES = ["train", "train/model", "train/model/model.safetensors", "public.pth", "public.safetensors"]


@pytest.mark.parametrize("source", SOURCES)
def test_all_but_the_encoder_is_taken(earlier, tmp_path, source):
    model = another()
    before, embeddings = state_of(model), model.embeddings.clone()
    provenance = load_rest(model, tmp_path / source)
    pairs = zip(model.encoder.parameters(), earlier.encoder.parameters(), strict=True)
    assert provenance.pop("other_encoder") == sum(not torch.equal(a, b) for a, b in pairs) > 0
    wanted = earlier.state_dict()
    rest = [name for name in before if not name.startswith("encoder.")]
    assert len(rest) == PARAMETERS
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name] if name in rest else before[name]), name
    assert torch.equal(model.embeddings, embeddings)
    path = tmp_path / source if "." in source else tmp_path / "train/model/model.safetensors"
    assert provenance == {
        "file": path.name, "bytes": path.stat().st_size, "sha256": storage.sha256_file(path),
        "format": provenance["format"], "tensors": PARAMETERS, "converted": 0,
    }  # fmt: skip
    assert provenance["format"].startswith("ram++, " if "public" in source else "ramflow model, safetensors")


@pytest.mark.parametrize("source", SOURCES)
def test_the_encoder_that_the_head_was_trained_with_is_known_by_its_numbers(earlier, tmp_path, source):
    model = another()
    model.encoder.load_state_dict(earlier.encoder.state_dict())
    assert load_rest(model, tmp_path / source)["other_encoder"] == 0
    next(model.encoder.swin.parameters()).data.view(-1)[0] += 1
    assert load_rest(model, tmp_path / source)["other_encoder"] == 1


def test_half_precision_is_converted_and_counted(earlier, tmp_path):
    state = upstream_state(earlier)
    torch.save({"model": {name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()}
                | {name: tensor for name, tensor in state.items() if not tensor.is_floating_point()}},
               tmp_path / "half.pth")  # fmt: skip
    model = another()
    assert load_rest(model, tmp_path / "half.pth")["converted"] == PARAMETERS
    assert torch.equal(model.head.logit.weight, earlier.head.logit.weight.half().float())


def test_names_of_early_public_checkpoints(earlier, tmp_path):
    state = {name.replace("tagging_head.", "vision_multi."): tensor for name, tensor in upstream_state(earlier).items()}
    torch.save({"model": state}, tmp_path / "early.pth")
    model = another()
    load_rest(model, tmp_path / "early.pth")
    assert torch.equal(model.head.layers[1].expand.weight, earlier.head.layers[1].expand.weight)


NAN = torch.tensor(float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.logit.bias"), r"1 missing: head\.logit\.bias"),
        (lambda s: s.update({"head.extra": torch.ones(1)}), r"1 unknown: head\.extra"),
        (lambda s: s.update({"tail": torch.ones(1)}), r"1 unknown: tail"),
        (lambda s: s.update({"head.logit.weight": torch.ones(1, 3)}),
         r"1 of another shape: head\.logit\.weight is \[1, 3\], not \[1, 16\]"),
        (lambda s: s.update({"head.logit.bias": torch.ones(1, dtype=torch.int64)}),
         r"1 not floating point: head\.logit\.bias"),
        (lambda s: s.update({"reweighting.scale": NAN}), r"1 not finite: reweighting\.scale"),
        (lambda s: s.update({"image_projection.bias": s["image_projection.bias"] / 0}), "1 not finite: image_proj"),
    ],
)  # fmt: skip
def test_anything_else_is_named_and_the_model_is_as_it_was(earlier, tmp_path, change, message):
    path = tmp_path / "train" / "model" / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    model = another()
    before = state_of(model)
    with pytest.raises(UserError, match=message) as error:
        load_rest(model, tmp_path / "train")
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_public_parameter_under_two_names_is_refused(earlier, tmp_path):
    state = dict(upstream_state(earlier))
    key = "tagging_head.encoder.layer.0.output.dense.bias"
    state[key.replace("tagging_head", "vision_multi")] = state[key] + 1
    torch.save({"model": state}, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"1 there twice: head\.layers\.0\.contract\.bias"):
        load_rest(another(), tmp_path / "both.pth")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: another(HEAD.model_copy(update={"layers": 1})), "16 unknown: "),
        (lambda: another(HEAD.model_copy(update={"layers": 3})), "16 missing: "),
        (lambda: another(HEAD.model_copy(update={"heads": 2})), r"4 attention heads.* 2: set train\.head\.heads to 4"),
        (lambda: another(width=12), "of another shape: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["train", "public.pth"])
def test_another_head_is_one_line(earlier, tmp_path, source, model, message):
    with pytest.raises(UserError, match=message) as error:
        load_rest(model(), tmp_path / source)
    assert "train.head" in str(error.value) and "\n" not in str(error.value)


def test_heads_are_those_that_train_wrote(earlier, tmp_path):
    path = tmp_path / "train" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["head"]["heads"] = 2
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="has 2 attention heads, the model 4"):
        load_rest(another(), tmp_path / "train")


def test_other_files_are_refused_by_name(tmp_path):
    save_file(fresh(0).swin.state_dict(), tmp_path / "swin.safetensors")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("swin.safetensors", "is timm, safetensors, which has no RAM"),
        ("nowhere", "no such weights file"),
        ("empty", r"holds no model/model\.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            load_rest(another(), tmp_path / name)
