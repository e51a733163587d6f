"""A model that knows the shared shapes by their names, with random weights, and ``ramflow tag`` over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ramflow import cli
from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.encoder import TextEncoder
from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.saved import save_model
from ramflow.settings import HeadSettings
from ramflow.tagging.vocabulary import encode_words
from ramflow.tags import TagTable
from tests.conftest import TAGS
from tests.embed.conftest import tiny_clip  # noqa: F401

NAME = "swin_tiny_patch4_window7_224"
OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
HEAD = HeadSettings(hidden=16, layers=1, heads=2, feed_forward=32, dropout=0.0)
CHINESE = ["圆", "方", "三角", "红 ", "蓝", ""]
THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


@pytest.fixture(scope="session")
def model(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """What train writes, with scores that differ from tag to tag and picture to picture."""
    out = tmp_path_factory.mktemp("tagging") / "train"
    out.mkdir()
    tags = TagTable(list(TAGS), thresholds=THRESHOLDS, chinese=CHINESE)
    encoder = TextEncoder(tiny_clip)
    embeddings, mask = encode_words(tags, None, [], encoder)
    torch.manual_seed(3)
    swin = Swin(NAME, OPTIONS)
    ram = RamPlus(swin, HEAD, embeddings, mask)
    torch.nn.init.normal_(ram.head.logit.weight, std=2.0)
    preprocessing = Preprocessing(swin.image_size, swin.mean, swin.std)
    config = {"encoder": {"name": NAME, "options": OPTIONS}, "head": HEAD.model_dump()}
    vectors = TagEmbeddings(embeddings, mask, tags.digest, encoder.identity)
    save_model(out, ram.state_dict(), config, preprocessing, tags, vectors, {"text_encoder": encoder.identity})
    return out


@pytest.fixture
def tag(model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """``tag(*words)``: run the command; returns its exit code, and the lines of output and of errors."""

    def run(*words: Any, model: Path | str = model) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = cli.main(["tag", *map(str, words), "--model", str(model), "--device", "cpu"])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return run


@pytest.fixture
def scores(tag) -> Callable[..., dict[str, dict[str, float]]]:
    """``scores(*words)``: the score of every tag by picture, as JSON has them."""

    def run(*words: Any) -> dict[str, dict[str, float]]:
        code, lines, errors = tag(*words, "--json", "--threshold", 0)
        assert code == 0, errors
        rows = [json.loads(line) for line in lines]
        return {row["image"]: {tag["name"]: tag["score"] for tag in row["tags"]} for row in rows}

    return run
