"""The weights file that an encoder should have started from, and any file's encoder under timm's names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ramflow.errors import UserError
from ramflow.weights.formats import WeightsFile, read_weights

WHOLE_MODELS = {"ram++": "RAM++", "ram": "RAM", "tag2text": "Tag2Text", "ramflow model": "ramflow"}
"""Families of whole models, and what people call them."""


class EncoderTensors(Mapping[str, Tensor]):
    """The Swin in a weights file, under timm's names; a tensor is read when it is asked for, and not kept."""

    def __init__(self, file: WeightsFile) -> None:
        self.file = file
        self._keys: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for key in file.keys:
            if place := file.place(key):
                self._keys[place.key].append((place.part, key))

    def __getitem__(self, name: str) -> Tensor:
        """Read one; the parts of one that the file keeps apart (query, key, value) are joined."""
        if name not in self._keys:
            raise KeyError(name)
        parts = [self.file.read(key) for _, key in sorted(self._keys[name])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True)
class Weights:
    """A Swin's weights file, or a whole model whose encoder stands for one."""

    file: WeightsFile
    encoder: EncoderTensors

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path


def read_swin(path: Path) -> Weights:
    """Open the weights of a Swin in any layout that ``verify`` knows.

    Raises:
        UserError: as ``read_weights``.
    """
    if path.is_dir():
        raise UserError(f"no such weights file: {path}: a folder, give the file in it")
    file = read_weights(path)
    return Weights(file, EncoderTensors(file))
