"""A tiny CLIP with a byte tokenizer and random weights, and the embed stage over the shared pictures of shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ramflow.settings import EmbedSettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.verdict import Verdict
from tests.conftest import TAGS

EMBED = next(stage for stage in STAGES if stage.name == "embed")
WIDTH, LIMIT = 16, 48

Texts = list[dict[str, list[str]]]


def write_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP in transformers layout: one token a letter, at most 48, vectors of 16 numbers."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LIMIT)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower["projection_dim"] = WIDTH
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**tower, **ids, "vocab_size": len(tokens), "max_position_embeddings": LIMIT},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=WIDTH,
    )
    CLIPModel(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP to read; copy it to change it."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def texts() -> Texts:
    """Descriptions of the shared tags in upstream's form, not in the tag list's order, one tag with one more."""
    described = [{tag: [f"a photo of a {tag}.", f"{tag}, as anyone draws it"]} for tag in reversed(TAGS)]
    described[0][TAGS[-1]].append("a horse with a horn")
    return described


@pytest.fixture
def embed(tiny_data: Path, tiny_audit: Path, tiny_clip: Path, tmp_path: Path) -> Callable[..., Verdict]:
    """``embed(texts, data=..., clip=..., out=..., embeddings=..., **settings)``: run the stage as the command line."""

    def run(
        texts: Texts | None = None, *, data: Path = tiny_data, audit: Path = tiny_audit, clip: Path = tiny_clip,
        out: str = "out", enforce: bool = False, embeddings: Path | None = None, reference: Path | None = None,
        **settings: Any,
    ) -> Verdict:  # fmt: skip
        inputs = {"data": data, "audit": audit, "clip": clip, "embeddings": embeddings, "reference": reference}
        if texts is not None:
            inputs["descriptions"] = tmp_path / "descriptions.json"
            inputs["descriptions"].write_text(json.dumps(texts), encoding="utf-8")
        given = {name: str(path) for name, path in inputs.items() if path is not None}
        chosen = EmbedSettings(**{"batch": 8, **settings})
        return execute(EMBED, chosen, given, str(tmp_path / out), enforce=enforce)

    return run
