"""The exact key ledger: every tensor of file and encoder is accounted for, or nothing is loaded (F01 to F03)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ramflow.errors import UserError
from ramflow.weights.formats import WeightsFile

HEAD = "head."
TABLE = "relative_position_bias_table"
SHOWN = 3


@dataclass(frozen=True)
class Ledger:
    """Where every tensor went.

    A key of the file stands in exactly one of ``loaded`` (as it is), ``converted`` (``from`` and ``to`` with the
    ``changes`` made) and ``unexpected`` (not used: the classification head, and buffers that the encoder computes and
    that were found equal). A key of the encoder stands in exactly one of ``loaded``, ``converted`` and
    ``expected_missing`` (buffers that it computes itself).
    """

    loaded: list[str] = field(default_factory=list)
    converted: list[dict[str, Any]] = field(default_factory=list)
    expected_missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def match_keys(file: WeightsFile, encoder: nn.Module, name: str) -> tuple[Ledger, dict[str, Tensor]]:
    """Match a file's tensors with the encoder's, without changing the encoder.

    Args:
        file: what was read.
        encoder: the timm model, without its head.
        name: what error messages call the encoder.

    Returns:
        The ledger, and float32 tensors under the encoder's names: exactly the keys of its state dict.

    Raises:
        UserError: a key is missing, unknown, of another shape or not of floating point; names the first of each.
    """
    wanted = encoder.state_dict()
    computed = {key: buffer for key, buffer in encoder.named_buffers() if key not in wanted}
    ledger = Ledger(expected_missing=sorted(computed))
    state: dict[str, Tensor] = {}
    unknown, faulty = [], []
    for key, tensor in file.state.items():
        target = file.timm_name(key)
        if target in wanted:
            faulty += _fault(target, tensor, wanted[target])
            state[target] = tensor.to(torch.float32)
            _enter(ledger, key, target, tensor.dtype)
        elif target.startswith(HEAD):
            ledger.unexpected.append(key)
        elif target in computed:
            faulty += _buffer_fault(target, tensor, computed[target])
            ledger.unexpected.append(key)
        else:
            unknown.append(key)
    missing = [key for key in wanted if key not in state]
    if missing or unknown or faulty:
        raise UserError(f"{file.path} is not for encoder {name}: {_explain(missing, unknown, faulty)}")
    return ledger, {key: state[key] for key in wanted}


def _enter(ledger: Ledger, key: str, target: str, dtype: torch.dtype) -> None:
    changes = ["renamed"] if key != target else []
    if dtype != torch.float32:
        changes.append(f"{str(dtype).removeprefix('torch.')} to float32")
    if changes:
        ledger.converted.append({"from": key, "to": target, "changes": changes})
    else:
        ledger.loaded.append(key)


def _fault(key: str, tensor: Tensor, wanted: Tensor) -> list[str]:
    if not tensor.is_floating_point():
        return [f"{key} is {str(tensor.dtype).removeprefix('torch.')}, not floating point"]
    if tensor.shape == wanted.shape:
        return []
    text = f"{key} is {list(tensor.shape)}, not {list(wanted.shape)}"
    windows = [(math.isqrt(t.shape[0]) + 1) // 2 for t in (tensor, wanted)] if key.endswith(TABLE) else [0, 0]
    if windows[0] != windows[1]:
        text += f" (window {windows[0]}, not {windows[1]}; nothing is interpolated)"
    return [text]


def _buffer_fault(key: str, tensor: Tensor, computed: Tensor) -> list[str]:
    if tensor.shape == computed.shape and torch.equal(tensor.to(computed.dtype), computed):
        return []
    return [f"{key} is not what the encoder computes (another window or image size)"]


def _explain(missing: list[str], unknown: list[str], faulty: list[str]) -> str:
    groups = (("missing", missing), ("unknown", unknown), ("not fitting", faulty))
    parts = [f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}" for what, keys in groups if keys]
    return "; ".join(parts) + "; give the encoder (and its options) that the file was made for"
