"""The attestation: what was loaded, tensor by tensor, so that training can prove it holds the same weights (F01)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ramflow.errors import UserError

ATTESTATION_FILE = "attestation.json"
ENCODER_FILE = "encoder.safetensors"
SHOWN = 3


@dataclass(frozen=True)
class EncoderIdentity:
    """Which encoder the weights are for: enough to create it again.

    ``options`` are timm's, ``image_size`` is in pixels, ``width`` that of an output token, ``mean`` and ``std`` are of
    the RGB channels in 0..1.
    """

    name: str
    options: dict[str, Any]
    image_size: int
    width: int
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Attestation:
    """What the verify stage vouches for; the fields are those of ``attestation.json`` in ``docs/architecture.md``."""

    source: dict[str, Any]
    encoder: EncoderIdentity
    ledger: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    probe: dict[str, Any]

    def write(self, directory: Path) -> None:
        """Write ``attestation.json`` into ``directory``, the same bytes for the same content."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (directory / ATTESTATION_FILE).write_text(text + "\n", encoding="utf-8")


def read_attestation(directory: Path) -> Attestation:
    """Read ``directory/attestation.json``.

    Raises:
        UserError: the file is missing or not an attestation.
    """
    path = directory / ATTESTATION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Attestation(**{**content, "encoder": EncoderIdentity(**content["encoder"])})
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} holds no {ATTESTATION_FILE}: make it with `ramflow verify`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an attestation of this ramflow ({error}): run verify again") from None


def tensor_digests(state: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """``{"shape": [...], "sha256": "sha256:..."}`` of every tensor, by key.

    The digest is of the tensor's values as contiguous little-endian float32, wherever it lives and whatever its type.
    """
    return {key: {"shape": list(tensor.shape), "sha256": _digest(tensor)} for key, tensor in state.items()}


def _digest(tensor: Tensor) -> str:
    assert sys.byteorder == "little"
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return "sha256:" + hashlib.sha256(values.numpy().data).hexdigest()


def check_attested(state: Mapping[str, Tensor], attestation: Attestation) -> None:
    """Recompute the digests of an encoder's state dict from memory and compare them with the attestation's.

    Args:
        state: the state dict of the timm model, with timm's key names.
        attestation: what verify saw.

    Raises:
        UserError: a tensor is missing, added, of another shape or another value; names the first of them.
    """
    now = tensor_digests(state)
    keys = [*attestation.tensors, *(key for key in now if key not in attestation.tensors)]
    differing = [key for key in keys if now.get(key) != attestation.tensors.get(key)]
    if differing:
        raise UserError(
            f"the encoder in memory is not the one that verify attested: {len(differing)} of {len(keys)} tensors "
            f"differ, first {', '.join(differing[:SHOWN])}; run verify again and give its output to train"
        )


def load_encoder(encoder: nn.Module, directory: Path) -> None:
    """Load ``directory/encoder.safetensors`` into a timm model: every key, none left over, no value changed.

    Args:
        encoder: the timm model (``Swin.swin``), without its classification head.
        directory: output of the verify stage.

    Raises:
        UserError: no such file, a damaged file, or one for another architecture.
    """
    path = directory / ENCODER_FILE
    try:
        state = safetensors.torch.load_file(path)
        encoder.load_state_dict(state, strict=True)
    except FileNotFoundError:
        raise UserError(f"{directory} holds no {ENCODER_FILE}: make it with `ramflow verify`") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): run verify again") from None
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise UserError(f"{path} is for another encoder ({first[:300]}): run verify with this encoder") from None
