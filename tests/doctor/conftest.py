"""Runs that were really trained, once a session, and tag lists with their annotations."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ramflow.doctor.command import read_case
from ramflow.doctor.examine import examine
from ramflow.doctor.finding import Answer
from ramflow.model.encoder import Swin
from tests.doctor.runs import Recipe, RunFiles, Trainer, data, pretrained, save_swin

OPTIONS = ("log", "checkpoint", "weights", "tags", "full_tags", "embeddings", "annotations")
SYLLABLES = ("ba", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu", "wa", "ze", "di", "fo", "gu", "ha", "je")
FULL = ["".join(parts) for parts in product(SYLLABLES, repeat=3)][:4585]
"""4585 made-up names of one length, none of which is in another."""
DROPPED = [37 + 31 * i for i in range(144)]
KEPT = [name for i, name in enumerate(FULL) if i not in set(DROPPED)]

Examine = Callable[..., Answer]


@pytest.fixture(scope="session")
def base() -> Swin:
    return pretrained()


@pytest.fixture(scope="session")
def swin(base: Swin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for the ImageNet file."""
    return save_swin(base, tmp_path_factory.mktemp("weights") / "swin_large_22k.pth")


@pytest.fixture(scope="session")
def failed(base: Swin, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """The run that failed: encoder never loaded, 144 tags dropped and re-indexed, batch 26."""
    recipe = Recipe(None, batch=26, tags=len(KEPT))
    return Trainer(recipe, data(base, recipe.tags)).files(tmp_path_factory.mktemp("runs") / "failed")


@pytest.fixture(scope="session")
def healthy(base: Swin, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """The same recipe as it should be: from the pretrained encoder, all tags, batch 52."""
    recipe = Recipe(base, batch=52, tags=len(FULL))
    return Trainer(recipe, data(base, recipe.tags)).files(tmp_path_factory.mktemp("runs") / "healthy")


@pytest.fixture(scope="session")
def small(base: Swin, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFiles]:
    """``small(loaded=..., batch=..., seed=...)``: a run on 459 tags, which takes a second; kept by its recipe."""
    done: dict[tuple[bool, int, int, int], RunFiles] = {}

    def run(loaded: bool = True, batch: int = 52, seed: int = 1, epochs: int = 2) -> RunFiles:
        key = (loaded, batch, seed, epochs)
        if key not in done:
            recipe = Recipe(base if loaded else None, batch, 459, epochs, seed)
            done[key] = Trainer(recipe, data(base, 459, seed)).files(tmp_path_factory.mktemp("runs") / "small")
        return done[key]

    return run


@pytest.fixture
def look() -> Examine:
    """``look(log=..., checkpoint=..., ...)``: what the doctor says of these files."""

    def run(**given: Any) -> Answer:
        return examine(read_case(Namespace(**{name: given.get(name) for name in OPTIONS})))

    return run


def ids(answer: Answer) -> list[str]:
    """Ids of the findings, by rank."""
    return [finding.id for finding in answer.findings]


def tag_list(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def annotations(path: Path, names: list[str], id_of: Callable[[str], int], images: int = 1200) -> Path:
    """Annotations of ``names``, every one of them used; two captions name 8 of the 11 tags of an image."""
    records = []
    for i in range(images):
        own = [names[(11 * i + j) % len(names)] for j in range(11)]
        captions = [" and ".join(own[:4]), "a " + ", a ".join(own[4:8])]
        records.append({
            "image_path": f"a/{i}.jpg", "caption": captions, "union_label_id": [id_of(name) for name in own],
        })  # fmt: skip
    path.write_text(json.dumps(records), encoding="utf-8")
    return path
