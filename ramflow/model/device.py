"""Where the work runs, and repeatably."""

from __future__ import annotations

import os

import torch

from ramflow.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of a setting: ``auto`` takes the GPU where there is one.

    Raises:
        UserError: ``cuda`` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no GPU here: set device to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def make_repeatable() -> None:
    """Same inputs, same bits on one machine (F31): only deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
