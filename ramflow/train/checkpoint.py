"""Checkpoints: weights, optimiser and position, whole on disk, verified on load, no pickle (F27)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ramflow import storage

FOLDER = "checkpoints"
STATE_FILE = "state.json"


@dataclass
class Position:
    """Where a run stands: steps done, the best validation so far, images left out, and how long its logs were."""

    step: int = 0
    best_step: int = -1
    best_mAP: float = -1.0
    skipped_images: int = 0
    metrics_bytes: int = 0
    events_bytes: int = 0


def save_checkpoint(
    directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position, keep: int
) -> None:
    """Write ``checkpoints/step-N`` whole, then remove all but the newest ``keep``."""
    folder = directory / FOLDER
    temporary = folder / f"step-{position.step:08d}{storage.PARTIAL}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(model.state_dict(), temporary / "model.safetensors")
    save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
    state = {"position": asdict(position), "files": storage.sha256_tree(temporary)}
    (temporary / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    final = folder / f"step-{position.step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in checkpoints(directory)[keep:]:
        shutil.rmtree(old)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((p for p in (directory / FOLDER).glob("step-*") if p.suffix != storage.PARTIAL), reverse=True)


def load_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position | None:
    """Bring back the newest whole checkpoint; a torn one is removed and the one before it used. None: there is none."""
    for path in checkpoints(directory):
        if not _is_whole(path):
            shutil.rmtree(path)
            continue
        model.load_state_dict(load_file(path / "model.safetensors"))
        _restore_optimizer(model, optimizer, load_file(path / "optimizer.safetensors"))
        return Position(**json.loads((path / STATE_FILE).read_text(encoding="utf-8"))["position"])
    return None


def _is_whole(path: Path) -> bool:
    try:
        files = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))["files"]
        return all(storage.sha256_file(path / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        optimizer.state[parameter][key] = value.to(parameter.device)
