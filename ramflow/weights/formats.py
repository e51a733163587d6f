"""Weights files read as they are: which container, which family of key names, and its tensors one by one.

Files are told apart by their bytes and keys, never by their name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ramflow import storage
from ramflow.errors import UserError
from ramflow.weights.containers import Container, container_of, is_zip, load_torch, open_safetensors
from ramflow.weights.families import Family, Place, find_family

WRAPPERS = ("model", "state_dict")
METADATA = {"format": "ramflow"}
HEADS = ("head.fc.", "head.", "classifier.")

RELEASE_AFTER = 64 << 20
"""Bytes read through a mapping before the file is mapped anew, so that pages read do not stay in memory."""


class WeightsFile:
    """Tensors of a weights file under the file's own names, read one by one, and what the file is."""

    def __init__(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        container: Container,
        family: Family,
        reopen: Callable[[], dict[str, Tensor]] | None = None,
    ) -> None:
        """Hold what was opened; ``reopen`` maps the file's tensors anew, where they are mapped."""
        self.path = path
        self.container = container
        self._tensors = tensors
        self._family = family
        self._reopen = reopen
        self._read = 0

    @property
    def keys(self) -> list[str]:
        """Names of the tensors, in the file's order."""
        return list(self._tensors)

    @property
    def family(self) -> str:
        """Family of key names, as :mod:`ramflow.weights.families` calls it."""
        return self._family.name

    def shape(self, key: str) -> list[int]:
        """Shape of a tensor."""
        return list(self._tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        """Type of a tensor's numbers."""
        return self._tensors[key].dtype

    def place(self, key: str) -> Place | None:
        """The tensor of timm's Swin that a key is; nothing for one outside the encoder."""
        return self._family.place(key)

    def view(self, key: str) -> Tensor:
        """One tensor as it lies in the file, mapped and not copied, for reading only."""
        self._read += self._tensors[key].nbytes
        if self._reopen and self._read > RELEASE_AFTER:
            self._tensors.clear()
            self._tensors.update(self._reopen())
            self._read = self._tensors[key].nbytes
        return self._tensors[key].detach()

    def read(self, key: str) -> Tensor:
        """Read one tensor, contiguous, into memory of its own."""
        return self.view(key).clone(memory_format=torch.contiguous_format)

    def class_head(self) -> tuple[Tensor, Tensor] | None:
        """Weight [classes, width] and bias [classes] of the classification head, float32, where the file has one."""
        for prefix in HEADS:
            weight, bias = f"{prefix}weight", f"{prefix}bias"
            if weight in self._tensors and bias in self._tensors and len(self.shape(weight)) == 2:
                return self.read(weight).float(), self.read(bias).float()
        return None

    @property
    def format(self) -> str:
        """Family and container in a few words."""
        return f"{self.family}, {self.container}"

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the attestation says of the file: its name, size in bytes, sha256, and format."""
        return {**digest_of(self.path), "format": self.format}


def digest_of(path: Path) -> dict[str, Any]:
    """``file`` (its name), ``bytes`` and ``sha256`` of a file.

    Raises:
        UserError: no such file.
    """
    container_of(path)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": storage.sha256_file(path)}


def read_weights(path: Path) -> WeightsFile:
    """Open a weights file of a Swin, or of RAM, RAM++ or Tag2Text: any family of :mod:`ramflow.weights.families`.

    Raises:
        UserError: no such file; damaged, cut off or no weights file; a pickle that wants more than tensors; or
            weights of another kind of model, with their first keys.
    """
    container = container_of(path)
    if container == "safetensors":
        tensors, metadata = open_safetensors(path)
        family = find_family(tensors, path, ours=metadata == METADATA)
        return WeightsFile(path, tensors, container, family, lambda: open_safetensors(path)[0])
    tensors = state_dict(load_torch(path), path)
    reopen = (lambda: state_dict(load_torch(path, checked=True), path)) if is_zip(path) else None
    return WeightsFile(path, tensors, container, find_family(tensors, path), reopen)


def state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors in what a torch file holds: a state dict, or a checkpoint with one under ``model`` or ``state_dict``.

    Raises:
        UserError: it holds something else.
    """
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, Tensor):
        raise UserError(f"{path} holds one tensor, {list(content.shape)}, not a state dict: tag embeddings go to embed")
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    others = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others:
        raise UserError(f"{path} is not a state dict: {others[0]!r} is not a tensor; save its state dict alone")
    return dict(content)
