"""Every known layout, in every container, gives the same tensors, told by bytes and keys."""

from __future__ import annotations

import argparse
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import SwinConfig, SwinForImageClassification

from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.weights import formats
from ramflow.weights.formats import read_weights
from ramflow.weights.ledger import match_keys
from tests.weights import layouts
from tests.weights.conftest import NAME, OPTIONS, fresh


def old_pickle(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def checkpoint(state, path):
    """As upstream's training writes it, with an optimiser, settings and counters beside the model."""
    parameters = {k: torch.nn.Parameter(t) if t.is_floating_point() else t for k, t in state.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1e-4}]}
    settings = argparse.Namespace(lr=1e-4, path="swin", best=np.float64(0.5), opt=OrderedDict(eps=1e-8))
    torch.save({"model": parameters, "optimizer": optimizer, "config": settings, "epoch": 3}, path)


LAYOUTS = {
    "timm safetensors": (dict, save_file, "timm, safetensors"),
    "timm pth": (dict, torch.save, "timm, torch"),
    "timm state_dict": (lambda s: {"state_dict": s, "epoch": 3}, torch.save, "timm, torch"),
    "timm before torch 1.6": (dict, old_pickle, "timm, torch"),
    "timm old safetensors": (layouts.old_timm, save_file, "microsoft, safetensors"),
    "timm old pth": (layouts.old_timm, torch.save, "microsoft, torch"),
    "microsoft": (layouts.microsoft, checkpoint, "microsoft, torch"),
    "microsoft before torch 1.6": (lambda s: {"model": layouts.microsoft(s)}, old_pickle, "microsoft, torch"),
    "hugging face": (layouts.hugging_face, save_file, "hugging face, safetensors"),
    "hugging face, new names": (lambda s: layouts.hugging_face(s, new=True), save_file, "hugging face, safetensors"),
    "hugging face model alone": (layouts.bare_hugging_face, torch.save, "hugging face, torch"),
    "ram++": (layouts.ram_plus, checkpoint, "ram++, torch"),
    "ram": (layouts.ram, checkpoint, "ram, torch"),
    "tag2text": (layouts.tag2text, checkpoint, "tag2text, torch"),
    "ramflow model": (layouts.ramflow_model, save_file, "ramflow model, safetensors"),
    "data parallel": (lambda s: layouts.wrapped(layouts.microsoft(s)), checkpoint, "microsoft, wrapped, torch"),
}


@pytest.mark.parametrize(("layout", "write", "format"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_tensors(state, tmp_path, layout, write, format):
    write(layout(state), tmp_path / "file")
    file = read_weights(tmp_path / "file")
    assert file.source["format"] == format
    ledger, tensors = match_keys(file, fresh(2).swin, NAME)
    assert list(tensors) == list(fresh(2).swin.state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in tensors.items())
    assert len(ledger.loaded) + len(ledger.converted) == len(tensors)
    used = len(ledger.loaded) + sum(len(e["from"]) if isinstance(e["from"], list) else 1 for e in ledger.converted)
    assert used + len(ledger.unexpected) + sum(ledger.other.values()) == len(file.keys)


@pytest.mark.parametrize("write", [save_file, torch.save])
def test_pages_read_are_let_go_and_tensors_stay(state, tmp_path, monkeypatch, write):
    write(state, tmp_path / "file")
    monkeypatch.setattr(formats, "RELEASE_AFTER", 1000)
    file = read_weights(tmp_path / "file")
    read = {key: file.read(key) for key in file.keys}
    assert all(torch.equal(tensor, state[key]) for key, tensor in read.items())
    read["norm.bias"].fill_(7)
    assert torch.equal(file.read("norm.bias"), state["norm.bias"])


def test_what_a_file_says_of_its_tensors(state, tmp_path):
    torch.save({**state, "norm.bias": state["norm.bias"].half()}, tmp_path / "file")
    file = read_weights(tmp_path / "file")
    assert file.keys == list(state)
    assert file.shape("norm.bias") == [32]
    assert file.dtype("norm.bias") == torch.float16


@pytest.mark.parametrize("layout", [dict, layouts.microsoft, layouts.hugging_face])
def test_the_class_head_is_found(state, tmp_path, layout):
    state["head.fc.weight"] = torch.randn(6, 32)
    torch.save(layout(state), tmp_path / "file")
    weight, bias = read_weights(tmp_path / "file").class_head()
    assert torch.equal(weight, state["head.fc.weight"])
    assert torch.equal(bias, state["head.fc.bias"])


@pytest.mark.parametrize("layout", [layouts.ram_plus, layouts.ramflow_model, layouts.bare_hugging_face])
def test_no_class_head_is_none(state, tmp_path, layout):
    torch.save(layout(state), tmp_path / "file")
    assert read_weights(tmp_path / "file").class_head() is None


@pytest.mark.parametrize("names_of", ["file", "memory"])
def test_hugging_faces_own_model_gives_the_same_tokens(tmp_path, names_of):
    """Numerically: transformers' Swin and ramflow's, on the same file."""
    torch.manual_seed(3)
    config = SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4)
    model = SwinForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    path = tmp_path / "model.safetensors"
    if names_of == "file":
        model.save_pretrained(tmp_path)
    else:
        save_file(model.state_dict(), path)
    encoder = Swin(NAME, OPTIONS).eval()
    ledger, tensors = match_keys(read_weights(path), encoder.swin, NAME)
    encoder.swin.load_state_dict(dict(tensors))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.swin(images).last_hidden_state
        tokens = encoder(images)[:, 1:]
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    joined = [entry for entry in ledger.converted if entry["changes"] == ["concatenated"]]
    assert len(joined) == 8
    assert all(len(entry["from"]) == 3 for entry in joined)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(6, 4), r"one tensor, \[6, 4\].*tag embeddings go to embed"),
        ({"model": {"a.weight": torch.ones(2), "step": 3}}, "'step' is not a tensor"),
        ({"model": {}}, "first keys are none"),
    ],
)
def test_other_content_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "file")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "file")


def test_no_file_or_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        read_weights(tmp_path / "none")
    with pytest.raises(UserError, match="a folder, give the file in it"):
        read_weights(tmp_path)
