"""Checkpoints of a run: the public code's checkpoint_XX.pth, a released model, or what ramflow's train stage wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ramflow.doctor.recipe import PUBLIC_DESCRIPTIONS
from ramflow.doctor.weights_file import WHOLE_MODELS, EncoderTensors
from ramflow.errors import UserError
from ramflow.weights.containers import load_torch
from ramflow.weights.formats import WeightsFile, read_weights

LABEL_EMBED = "label_embed"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose tensors are read when they are looked at.

    ``config``, ``epoch`` and ``updates`` (steps of the optimiser) are what the file says beside the model, if it does;
    ``per_tag`` is how many rows of the embeddings a tag has, if they are not averaged.
    """

    file: WeightsFile
    encoder: EncoderTensors
    config: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    updates: int | None = None
    per_tag: int = PUBLIC_DESCRIPTIONS

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path

    @property
    def family(self) -> str:
        """``ram++``, ``ram``, ``tag2text`` or ``ramflow model``."""
        return self.file.family.removesuffix(", wrapped")

    @property
    def label_rows(self) -> int | None:
        """Rows of the public code's tag embeddings, [tags x descriptions, width]; None: it has none."""
        key = self.key(LABEL_EMBED)
        return self.file.shape(key)[0] if key else None

    @property
    def tags(self) -> int | None:
        """The number of tags, where the rows tell it: RAM++ has several a tag, or one if they were averaged."""
        rows = self.label_rows
        by_description = self.family == "ram++" and rows and rows % self.per_tag == 0
        return rows // self.per_tag if rows and by_description else rows

    def key(self, name: str) -> str | None:
        """The file's key for a tensor of the model, which data parallelism wraps; None: not there."""
        return next((key for key in (name, f"module.{name}") if key in self.file.keys), None)

    def read(self, name: str) -> Tensor | None:
        """A tensor of the model, or None."""
        key = self.key(name)
        return self.file.read(key) if key else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint, or the newest one in a folder of ramflow's train stage.

    Raises:
        UserError: nothing there, damaged, or not a model of these families; a pickle that wants to run code.
    """
    path = _in_folder(path) if path.is_dir() else path
    file = read_weights(path)
    if file.family.removesuffix(", wrapped") not in WHOLE_MODELS:
        raise UserError(
            f"{path} is a Swin alone, not a checkpoint of RAM++, RAM, Tag2Text or ramflow: give it as --weights"
        )
    content = load_torch(path, checked=True) if file.container == "torch" else {}
    content = content if isinstance(content, Mapping) else {}
    config, epoch = content.get("config"), content.get("epoch")
    return Checkpoint(
        file,
        EncoderTensors(file),
        config if isinstance(config, Mapping) else {},
        epoch if isinstance(epoch, int) else None,
        _updates(content.get("optimizer")),
    )


def _in_folder(folder: Path) -> Path:
    """The trained model of a train stage's output, or its newest checkpoint."""
    steps = sorted(folder.glob("checkpoints/step-*[0-9]"))
    places = [folder / "model", folder, *steps[-1:]]
    for place in places:
        if (place / "model.safetensors").is_file():
            return place / "model.safetensors"
    raise UserError(f"{folder} is a folder without a checkpoint of ramflow: give the checkpoint_XX.pth itself")


def _updates(optimizer: object) -> int | None:
    state = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    if not isinstance(state, Mapping):
        return None
    steps = [entry["step"] for entry in state.values() if isinstance(entry, Mapping) and "step" in entry]
    return max((int(step) for step in steps), default=None)
