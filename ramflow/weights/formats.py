"""Weights files read as they are: which container, which family of key names, and how those map to timm's.

Files are told apart by their bytes and keys, never by their name. Pickles are read for tensors only.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ramflow import storage
from ramflow.errors import UserError

Family = Literal["timm", "microsoft", "ramflow"]

WRAPPERS = ("model", "state_dict")
METADATA = {"format": "ramflow"}
SWIN_KEYS = ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table")
SHOWN = 3


@dataclass(frozen=True)
class WeightsFile:
    """Tensors of a weights file under the file's own names, and what the file is."""

    path: Path
    state: dict[str, Tensor]
    container: Literal["safetensors", "torch"]
    family: Family

    @property
    def source(self) -> dict[str, Any]:
        """What the attestation says of the file: its name, size in bytes, sha256, and format."""
        return {
            "file": self.path.name,
            "bytes": self.path.stat().st_size,
            "sha256": storage.sha256_file(self.path),
            "format": f"{self.family}, {self.container}",
        }

    def timm_name(self, key: str) -> str:
        """timm's name of a key. Microsoft's Swin has a stage's downsample layer at the end of the stage before it."""
        if self.family == "microsoft" and (match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key)):
            return f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
        return key


def read_weights(path: Path) -> WeightsFile:
    """Read a Swin's weights file: timm's or Microsoft's, as safetensors or ``torch.save``, or ramflow's own.

    Raises:
        UserError: no such file; damaged, cut off or no weights file; a pickle that wants more than tensors; or
            weights of another kind of model, with their first keys.
    """
    if not path.is_file():
        raise UserError(f"no such weights file: {path}" + (": a folder, give the file in it" if path.is_dir() else ""))
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" or start == b"PK":
        state = _read_torch(path, zipped=start == b"PK")
        return WeightsFile(path, state, "torch", _family(path, state, {}))
    state, metadata = _read_safetensors(path)
    return WeightsFile(path, state, "safetensors", _family(path, state, metadata))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        file: Any = safe_open(path, framework="pt")
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, cut off or not a weights file ({error}): fetch it again") from None


def _read_torch(path: Path, *, zipped: bool) -> dict[str, Tensor]:
    try:
        if zipped and (member := zipfile.ZipFile(path).testzip()):
            raise UserError(f"{path} is damaged (the checksum of {member} differs): fetch it again")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{wanted[1]}, which" if wanted else "objects, which"
        raise UserError(
            f"{path} is refused: beside tensors it holds {what} could run code when read; save its state dict alone"
        ) from None
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is damaged, cut off or not a weights file ({reason}): fetch it again") from None
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    others = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others:
        raise UserError(f"{path} is not a state dict: {others[0]!r} is not a tensor; save its state dict alone")
    return content


def _family(path: Path, state: dict[str, Tensor], metadata: Mapping[str, str]) -> Family:
    if any(key not in state for key in SWIN_KEYS):
        first = ", ".join(list(state)[:SHOWN]) or "none"
        raise UserError(f"{path} is not a Swin in timm's or Microsoft's layout: its first keys are {first}")
    if metadata == METADATA:
        return "ramflow"
    return "microsoft" if any(key.startswith("layers.0.downsample.") for key in state) else "timm"
