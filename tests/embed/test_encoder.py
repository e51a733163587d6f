"""The text encoder is CLIP's own, whatever the batch, and a folder that is not a CLIP is one line."""

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
    AutoTokenizer,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPModel,
    CLIPTextModelWithProjection,
    MetaClip2Config,
    MetaClip2Model,
)

from ramflow import storage
from ramflow.embed.encoder import TextEncoder
from ramflow.errors import UserError
from tests.embed.conftest import LIMIT, WIDTH, write_clip

TEXTS = ["a red square", "", "a circle that is blue and lies on its side", "x" * 200, "a red square", "blue"]


TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = {**TOWER, "image_size": 32, "patch_size": 16}


def write_metaclip_2(tiny_clip, folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    tokenizer.save_pretrained(folder)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**TOWER, **ids, "projection_dim": WIDTH, "vocab_size": len(tokenizer), "max_position_embeddings": LIMIT}
    return saved(MetaClip2Model(MetaClip2Config(text_config=text, vision_config=EYES, projection_dim=WIDTH)), folder)


def write_bert_clip(model, config, **text):
    def write(_, folder):
        letters = "abcdefghijklmnopqrstuvwxyz"
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        BertTokenizer(vocab={t: i for i, t in enumerate(tokens)}, model_max_length=1000).save_pretrained(folder)
        own = {**TOWER, "vocab_size": len(tokens), "max_position_embeddings": 34, **text}
        return saved(model(config(text_config=own, vision_config=EYES, projection_dim=WIDTH)), folder)

    return write


def saved(model, folder):
    model.save_pretrained(folder)
    return model.eval()


OTHERS = {
    "metaclip_2": write_metaclip_2,
    "chinese_clip": write_bert_clip(ChineseCLIPModel, ChineseCLIPConfig),
    "altclip": write_bert_clip(AltCLIPModel, AltCLIPConfig, project_dim=32, pad_token_id=0),
}


@pytest.fixture
def pickled_clip(tiny_clip, tmp_path):
    """The tiny CLIP with pytorch_model.bin only."""
    folder = shutil.copytree(tiny_clip, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def encode(encoder, texts, batch):
    return encoder.encode(texts, batch)


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
    assert torch.allclose(vectors, torch.stack([encoder.encode([text], 1)[0] for text in TEXTS]), atol=1e-5)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-5)


def test_tokens_are_cut_at_the_limit_and_that_is_said(tiny_clip):
    encoder = TextEncoder(tiny_clip)
    assert encoder.limit == LIMIT
    tokens = encoder.tokenize(["", "ab", "x" * 46, "x" * 47])
    assert ([len(ids) for ids in tokens.ids], tokens.cut) == ([2, 4, 48, 48], [False, False, False, True])
    assert tokens.ids[3][:-2] == tokens.ids[2][:-2] and tokens.ids[3][-1] == tokens.ids[2][-1]


def test_texts_of_one_length_are_encoded_together(tiny_clip):
    encoder = TextEncoder(tiny_clip)
    texts = ["blue", "x" * 40, "pink", "y" * 40]
    groups = [places for places, _ in encoder.encode_tokens(encoder.tokenize(texts).ids, 2)]
    assert groups == [[0, 2], [1, 3]]


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


@pytest.mark.parametrize("kind", ["metaclip_2", "chinese_clip", "altclip"])
def test_other_clips_of_transformers(kind, tiny_clip, tmp_path):
    whole = OTHERS[kind](tiny_clip, tmp_path)
    encoder = TextEncoder(tmp_path)
    assert encoder.identity["type"] == kind
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a red square", "blue", "x " * 100]
    for text, vector in zip(texts, encoder.encode(texts, 2), strict=True):
        tokens = tokenizer([text], truncation=True, max_length=encoder.limit, return_tensors="pt")
        wanted = whole.get_text_features(**tokens).pooler_output[0]
        assert torch.allclose(vector, wanted / wanted.norm(), atol=1e-5)


def test_pickled_weights_are_the_same_encoder(tiny_clip, pickled_clip):
    texts = TEXTS[:3]
    assert torch.equal(encode(TextEncoder(pickled_clip), texts, 4), encode(TextEncoder(tiny_clip), texts, 4))


def test_pickled_weights_that_want_to_run_code_are_refused(pickled_clip, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"logit_scale": Harm()}, pickled_clip / "pytorch_model.bin")
    with pytest.raises(UserError, match="is refused"):
        TextEncoder(pickled_clip)
    assert not (tmp_path / "harm").exists()


def test_code_in_the_folder_is_not_run(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    (folder / "harm.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'harm')!r})\nclass Config: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {"AutoConfig": "harm.Config", "AutoTokenizer": ["harm.Config", None]}
        (folder / name).write_text(json.dumps(content))
    TextEncoder(folder)
    assert not (tmp_path / "harm").exists()


def test_siglip_is_refused_by_name(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(UserError, match="is a siglip model, not CLIP: give one of the types clip, "):
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
