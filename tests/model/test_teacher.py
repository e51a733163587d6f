"""The teacher is CLIP's own image half, of every family that the text encoder knows, and in half precision too."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    MetaClip2Config,
    MetaClip2Model,
)

from ramflow.errors import UserError
from ramflow.model.teacher import KINDS, Teacher

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = {**TOWER, "image_size": 32, "patch_size": 16}
WORDS = {**TOWER, "vocab_size": 64, "max_position_embeddings": 8}
FAMILIES = {
    "clip": (CLIPModel, CLIPConfig, {}),
    "metaclip_2": (MetaClip2Model, MetaClip2Config, {}),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, {}),
    "altclip": (AltCLIPModel, AltCLIPConfig, {"project_dim": 32, "pad_token_id": 0}),
}
PIXELS = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def write(folder, kind="clip"):
    """A random CLIP of a family, 16 wide; returns transformers' own model."""
    torch.manual_seed(2)
    model, config, text = FAMILIES[kind]
    whole = model(config(text_config={**WORDS, **text}, vision_config=EYES, projection_dim=16)).eval()
    whole.save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return whole


def wanted(model, teacher):
    with torch.no_grad():
        return model.get_image_features(pixel_values=teacher.preprocessing.normalise(PIXELS)).pooler_output


@pytest.mark.parametrize("kind", FAMILIES)
def test_features_are_those_of_the_whole_clip(kind, tmp_path):
    model, teacher = write(tmp_path, kind), Teacher(tmp_path)
    features = teacher(PIXELS)
    torch.testing.assert_close(features, wanted(model, teacher), rtol=1e-5, atol=1e-6)
    assert (teacher.width, teacher.preprocessing.size, teacher.preprocessing.mean) == (16, 32, (0.5, 0.4, 0.3))
    assert teacher.tower.config._attn_implementation == "sdpa"
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(name.startswith("text") for name, _ in teacher.named_parameters())
    assert kind in KINDS


@pytest.mark.parametrize(("precision", "far"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_half_precision_is_near_and_comes_out_in_float32(tmp_path, precision, far):
    model, teacher = write(tmp_path), Teacher(tmp_path, precision)
    features = teacher(PIXELS)
    difference = (features - wanted(model, teacher)).norm() / features.norm()
    assert features.dtype == torch.float32 and 1e-5 < difference < far
    assert all(parameter.dtype == torch.float32 for parameter in teacher.parameters())


def test_the_loss_may_keep_features_for_its_gradient(tmp_path):
    write(tmp_path)
    features, weight = Teacher(tmp_path)(PIXELS), torch.ones(16, requires_grad=True)
    assert not features.requires_grad and not features.is_inference()
    (features * weight).sum().backward()
    torch.testing.assert_close(weight.grad, features.sum(dim=0))


def test_weights_of_the_image_half_that_are_missing_are_named_those_of_the_text_half_are_not(tmp_path):
    write(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    del state["text_projection.weight"]
    save_file(state, path, metadata={"format": "pt"})
    Teacher(tmp_path)
    del state["visual_projection.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of its image half, first visual_projection\.weight"):
        Teacher(tmp_path)


def test_pickled_weights_are_read_without_running_them(tmp_path):
    model = write(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    teacher = Teacher(tmp_path)
    torch.testing.assert_close(teacher(PIXELS), wanted(model, teacher), rtol=1e-5, atol=1e-6)

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"logit_scale": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="is refused"):
        Teacher(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_other_families_are_refused_by_name(tmp_path):
    half = CLIPTextModelWithProjection(CLIPTextConfig(**WORDS, projection_dim=16))
    half.save_pretrained(tmp_path / "half")
    for folder, kind in (("half", "clip_text_model"), ("siglip", "siglip")):
        if kind == "siglip":
            write(tmp_path / folder)
            (tmp_path / folder / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(
            UserError, match=f"is a {kind} model.*give a whole CLIP of one of the types clip, "
        ) as error:
            Teacher(tmp_path / folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_is_no_clip_is_one_line(tmp_path, name):
    write(tmp_path / "clip")
    broken = shutil.copytree(tmp_path / "clip", tmp_path / "broken")
    for spoil in (lambda: (broken / name).write_text("{"), lambda: (broken / name).unlink()):
        spoil()
        with pytest.raises(UserError, match="is not a CLIP that transformers can read") as error:
            Teacher(broken)
        assert "\n" not in str(error.value)
