"""A trained model on disk, with all it takes to use it: preprocessing, tag table and thresholds, tag vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ramflow.data.vectors import TagEmbeddings, read_tag_embeddings
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing, read_preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from ramflow.tags import TagTable, read_tags

FOLDER = "model"


@dataclass(frozen=True)
class SavedModel:
    """A model with all it takes to use it."""

    model: RamPlus
    preprocessing: Preprocessing
    tags: TagTable


def save_model(
    directory: Path,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    preprocessing: Preprocessing,
    tags: TagTable,
    vectors: TagEmbeddings,
    provenance: dict[str, Any],
) -> None:
    """Write ``model/`` into ``directory``.

    Args:
        directory: output of the train stage.
        weights: state dict of the model.
        config: ``encoder`` (name, options) and ``head`` (:class:`HeadSettings`).
        preprocessing: what the encoder expects.
        tags: with status and thresholds.
        vectors: the tag embeddings it was trained with.
        provenance: digests of what it was made from.
    """
    folder = directory / FOLDER
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    for name, content in (("config.json", config), ("provenance.json", provenance)):
        (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    preprocessing.write(folder)
    tags.write(folder / "tags.csv")
    vectors.write(folder)


def load_model(directory: Path) -> SavedModel:
    """Load ``model/`` of a train stage's output, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    folder = directory / FOLDER
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tags, vectors = read_tags(folder / "tags.csv"), read_tag_embeddings(folder)
        if vectors.tag_digest != tags.digest:
            raise UserError(f"{folder}: tags.csv and tags.safetensors are of different tag lists: train again")
        encoder = Swin(config["encoder"]["name"], config["encoder"]["options"])
        model = RamPlus(encoder, HeadSettings(**config["head"]), vectors.embeddings, vectors.mask)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return SavedModel(model.eval(), read_preprocessing(folder), tags)
    except (FileNotFoundError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} is not a whole trained model ({' '.join(str(error).split())[:300]})") from None
