"""Families are told by keys; another kind of model is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import transformers

from ramflow.errors import UserError
from ramflow.weights.families import find_family
from tests.weights import layouts

PATH = Path("weights.pth")
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}


def keys_of_timm(name):
    with torch.device("meta"):
        return list(timm.create_model(name, pretrained=False).state_dict())


def test_each_family_is_told(state):
    for layout, name in (
        (dict, "timm"),
        (layouts.microsoft, "microsoft"),
        (layouts.old_timm, "microsoft"),
        (layouts.hugging_face, "hugging face"),
        (layouts.bare_hugging_face, "hugging face"),
        (layouts.ram_plus, "ram++"),
        (layouts.ram, "ram"),
        (layouts.tag2text, "tag2text"),
        (layouts.ramflow_model, "ramflow model"),
        (layouts.wrapped, "timm, wrapped"),
    ):
        assert find_family(layout(state), PATH).name == name
    assert find_family(state, PATH, ours=True).name == "ramflow"


@pytest.mark.parametrize("name", ["swin_large_patch4_window7_224", "swin_s3_tiny_224"])
def test_timms_swins_are_timms(name):
    assert find_family(keys_of_timm(name), PATH).name == "timm"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("swinv2_tiny_window8_256", "Swin v2"),
        ("vit_tiny_patch16_224", "a vision transformer"),
        ("resnet18", "a ResNet"),
        ("convnext_atto", "a ConvNeXt"),
    ],
)
def test_another_kind_of_model_is_named(name, kind):
    with pytest.raises(UserError, match=rf"weights\.pth is {kind}.*not a Swin.*first keys are") as error:
        find_family(keys_of_timm(name), PATH)
    assert "\n" not in str(error.value)


def test_hugging_faces_other_models_are_named():
    v2 = transformers.Swinv2Config(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    vit = transformers.ViTConfig(image_size=32, **SMALL)
    clip = transformers.CLIPConfig(text_config={**SMALL, "vocab_size": 8}, vision_config={**SMALL, "image_size": 32})
    for model, kind in (
        (transformers.Swinv2Model(v2), "Swin v2"),
        (transformers.ViTModel(vit), "a vision transformer"),
        (transformers.CLIPModel(clip), "a CLIP model"),
    ):
        with pytest.raises(UserError, match=f"is {kind}"):
            find_family(model.state_dict(), PATH)


def test_an_unknown_layout_is_named_by_its_first_keys():
    with pytest.raises(UserError, match=r"not a Swin in a layout that ramflow knows: its first keys are a\.b, c, d"):
        find_family(["a.b", "c", "d", "e"], PATH)


def test_a_changed_layout_drops_nothing_silently(state):
    """F02: one family's layers under another's prefix are not taken for either."""
    with pytest.raises(UserError, match="not a Swin in a layout"):
        find_family([f"backbone.{key}" for key in state], PATH)
