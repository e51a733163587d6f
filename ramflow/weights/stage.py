"""verify: pretrained encoder weights loaded exactly, proved to be in memory, and proved to be pretrained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ramflow.data.dataset import Dataset
from ramflow.model.encoder import Swin
from ramflow.settings import VerifySettings
from ramflow.verdict import Check, Verdict, check
from ramflow.weights.agreement import agreement, views_of
from ramflow.weights.attest import ENCODER_FILE, Attestation, EncoderIdentity, tensor_digests
from ramflow.weights.formats import METADATA, read_weights
from ramflow.weights.ledger import Ledger, match_keys
from ramflow.weights.numbers import Numbers, look

MAX_RANDOM = 0.5
"""Share of matrices that may look random; of a fresh initialisation all do."""

DIGITS = 4
"""Of the probe's figures: what another number of threads changes is beyond."""


def run(
    settings: VerifySettings, *, weights: Path, data: Path | None = None, embed: Path | None = None, out: Path
) -> Verdict:
    """Write ``encoder.safetensors`` and ``attestation.json`` into ``out``.

    Args:
        settings: which encoder, and what the probe expects.
        weights: the weights file (formats: ``ramflow/weights/formats.py``).
        data: the packed dataset that the probe takes its images from; without it, only numbers are looked at.
        embed: not read; an input only so that verify comes after it.
        out: the directory to fill.

    Raises:
        UserError: the file is unreadable, or not for this encoder.
    """
    file = read_weights(weights)
    encoder = _fresh_encoder(settings)
    ledger, state = match_keys(file, encoder.swin, settings.encoder)
    numbers = look(state, encoder.swin.state_dict())
    views = views_of(Dataset(data), settings.probe_images, encoder.image_size) if data else None
    fresh_agreement = agreement(encoder, views) if views else None

    encoder.swin.load_state_dict(state, strict=True)
    memory = encoder.swin.state_dict()
    differing = [key for key, tensor in memory.items() if not _same_bits(tensor, state[key])]
    probe = _probe(numbers, views, agreement(encoder, views) if views else None, fresh_agreement)
    safetensors.torch.save_file(memory, out / ENCODER_FILE, metadata=METADATA)
    Attestation(file.source, _identity(encoder, settings), asdict(ledger), tensor_digests(memory), probe).write(out)
    metrics = {"format": file.source["format"], "tensors": len(memory), **probe}
    return Verdict("verify", checks=_checks(ledger, differing, numbers, probe, settings), metrics=metrics)


def _fresh_encoder(settings: VerifySettings) -> Swin:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Swin(settings.encoder, settings.encoder_options).eval()


def _identity(encoder: Swin, settings: VerifySettings) -> EncoderIdentity:
    size, width = encoder.image_size, encoder.width
    return EncoderIdentity(
        settings.encoder, settings.encoder_options, size, width, list(encoder.mean), list(encoder.std)
    )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def _probe(
    numbers: Numbers, views: tuple[Tensor, Tensor] | None, loaded: float | None, fresh: float | None
) -> dict[str, Any]:
    probe: dict[str, Any] = {
        "trained_matrices": round(1 - len(numbers.random) / numbers.matrices, DIGITS),
        "untouched_tensors": len(numbers.untouched),
        "distance_to_fresh": round(numbers.distance, DIGITS),
        "images": len(views[0]) if views else 0,
    }
    if loaded is not None and fresh is not None:
        ratio = loaded / fresh if fresh > 0 else 0.0
        figures = {"agreement": loaded, "agreement_fresh": fresh, "ratio": ratio}
        probe |= {name: round(figure, DIGITS) for name, figure in figures.items()}
    return probe


def _checks(
    ledger: Ledger, differing: list[str], numbers: Numbers, probe: dict[str, Any], settings: VerifySettings
) -> list[Check]:
    tensors = len(ledger.loaded) + len(ledger.converted)
    random = len(numbers.random)
    return [
        check("weights.ledger", "info", 0, tensors,
              f"{len(ledger.loaded)} tensors loaded as they are, {len(ledger.converted)} converted, "
              f"{len(ledger.expected_missing)} computed by the encoder, {len(ledger.unexpected)} of the file not used",
              examples=ledger.unexpected),
        check("weights.in_memory", "error", len(differing), tensors,
              f"{len(differing)} of {tensors} tensors in memory are not the file's after loading", examples=differing),
        check("weights.pretrained", "error", random, numbers.matrices,
              f"{random} of {numbers.matrices} matrices look random (no direction stands out of noise); more than half "
              "means weights that were never trained: give the pretrained file, or train with from_scratch",
              limit=int(MAX_RANDOM * numbers.matrices), examples=numbers.random),
        check("weights.untouched", "error", len(numbers.untouched), tensors,
              f"{len(numbers.untouched)} of {tensors} tensors are as a fresh initialisation leaves them: "
              "give a file that was trained whole",
              examples=numbers.untouched),
        check("weights.constant", "error", len(numbers.constant), tensors,
              f"{len(numbers.constant)} of {tensors} tensors hold one value all over: fetch the file again",
              examples=numbers.constant),
        check("weights.finite", "error", len(numbers.not_finite), tensors,
              f"{len(numbers.not_finite)} of {tensors} tensors hold NaN or infinity: fetch the file again",
              examples=numbers.not_finite),
        _agreement_check(probe, settings),
    ]  # fmt: skip


def _agreement_check(probe: dict[str, Any], settings: VerifySettings) -> Check:
    if "ratio" not in probe:
        return check("weights.agreement", "info", 0, 0, "no dataset was given: only the file's numbers were looked at")
    failed = not probe["ratio"] >= settings.min_probe_ratio
    return check(
        "weights.agreement", "error", probe["images"] if failed else 0, probe["images"],
        f"two views of an image agree {probe['ratio']:.2f} times as well as with a fresh encoder, "
        f"at least {settings.min_probe_ratio:g} is expected of pretrained weights",
    )  # fmt: skip
