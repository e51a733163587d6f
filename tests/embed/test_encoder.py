"""The text encoder is CLIP's own, whatever the batch, and a folder that is not a CLIP is one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, CLIPTextModelWithProjection

from ramflow import storage
from ramflow.embed.encoder import TextEncoder
from ramflow.errors import UserError
from tests.embed.conftest import LIMIT, WIDTH, write_clip

TEXTS = ["a red square", "", "a circle that is blue and lies on its side", "x" * 200, "a red square", "blue"]


def encode(encoder, texts, batch):
    return encoder.encode(texts, encoder.token_counts(texts), batch, "test")


def test_vectors_are_those_of_the_whole_clip_in_order(tiny_clip):
    model = CLIPModel.from_pretrained(tiny_clip, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    vectors = encode(TextEncoder(tiny_clip), TEXTS, 3)
    for text, vector in zip(TEXTS, vectors, strict=True):
        tokens = tokenizer([text], truncation=True, max_length=LIMIT, return_tensors="pt")
        wanted = model.get_text_features(**tokens).pooler_output[0]
        assert torch.allclose(vector, wanted / wanted.norm(), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_batch_does_not_matter(tiny_clip, batch):
    encoder = TextEncoder(tiny_clip)
    vectors = encode(encoder, TEXTS, batch)
    assert torch.allclose(vectors, torch.stack([encoder.encode_one(text) for text in TEXTS]), atol=1e-5)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-5)


def test_tokens_are_counted_before_the_cut(tiny_clip):
    encoder = TextEncoder(tiny_clip)
    assert encoder.limit == LIMIT
    assert encoder.token_counts(["", "ab", "x" * 200]) == [2, 4, 202]


def test_identity_is_of_the_weights_and_says_no_path(tiny_clip, tmp_path):
    moved = shutil.copytree(tiny_clip, tmp_path / "elsewhere")
    identity = TextEncoder(tiny_clip).identity
    assert identity == TextEncoder(moved).identity
    assert identity == {"type": "clip", "width": WIDTH, "weights": storage.sha256_file(tiny_clip / "model.safetensors")}
    assert TextEncoder(write_clip(tmp_path / "other", seed=1)).identity != identity


def test_a_folder_of_the_text_half_alone_is_the_same_encoder(tiny_clip, tmp_path):
    half = shutil.copytree(tiny_clip, tmp_path / "half")
    (half / "model.safetensors").unlink()
    CLIPTextModelWithProjection.from_pretrained(tiny_clip).save_pretrained(half)
    assert TextEncoder(half).identity["type"] == "clip_text_model"
    assert torch.equal(encode(TextEncoder(half), TEXTS, 4), encode(TextEncoder(tiny_clip), TEXTS, 4))


def test_weights_that_are_missing_are_named_not_made_up(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of its text model, first text_projection\.weight"):
        TextEncoder(folder)




@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("not json"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100]),
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()) | {"model_type": "bert"})
        ),
    ],
    ids=["no config", "no weights", "broken tokenizer", "broken config", "weights cut off", "another model"],
)
def test_a_folder_that_is_no_clip_is_one_line(tiny_clip, tmp_path, change):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    change(folder)
    with pytest.raises(UserError, match="CLIP") as error:
        TextEncoder(folder)
    assert "\n" not in str(error.value)
