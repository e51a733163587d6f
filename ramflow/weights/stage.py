"""verify: pretrained encoder weights loaded exactly, proved to be in memory, and proved to be pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ramflow.data.dataset import Dataset
from ramflow.model.encoder import Swin
from ramflow.progress import say
from ramflow.settings import VerifySettings
from ramflow.verdict import Check, Verdict, check
from ramflow.weights.attest import ENCODER_FILE, Attestation, EncoderIdentity, tensor_digests
from ramflow.weights.containers import write_safetensors
from ramflow.weights.formats import METADATA, digest_of, read_weights
from ramflow.weights.functional import Functional, figures, functional_checks, look_at_images, views_of
from ramflow.weights.known import identify
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

    The file's tensors are read one by one into the place of fresh ones, so that one encoder is in memory at a time.

    Args:
        settings: which encoder, and what the probe expects.
        weights: the weights file (formats: ``ramflow/weights/families.py``).
        data: the packed dataset that the probe takes its images from; without it, only numbers are looked at.
        embed: not read; an input only so that verify comes after it.
        out: the directory to fill.

    Raises:
        UserError: the file is unreadable, not what was pinned, or not for this encoder.
    """
    digest = digest_of(weights)
    known = identify(digest["file"], digest["bytes"], digest["sha256"], settings.sha256)
    file = read_weights(weights)
    encoder = _fresh_encoder(settings)
    ledger, tensors = match_keys(file, encoder.swin, settings.encoder, interpolate=settings.interpolate)
    source = {**digest, "format": file.format, "known": known.describe() if known else None}
    _say(source, ledger)

    numbers = look(tensors, encoder.swin.state_dict())
    views = views_of(Dataset(data), settings.probe_images, encoder.image_size) if data else None
    head = file.class_head() if views else None
    fresh = look_at_images(encoder, views, head) if views else None
    _load(encoder.swin, tensors)
    loaded = look_at_images(encoder, views, head) if views else None
    memory = encoder.swin.state_dict()
    differing = [key for key, tensor in memory.items() if not _same_bits(tensor, tensors[key])]

    write_safetensors(out / ENCODER_FILE, memory, METADATA)
    probe = _probe(numbers, len(views[0]) if views else 0, loaded, fresh)
    Attestation(source, _identity(encoder, settings), asdict(ledger), tensor_digests(memory), probe).write(out)
    checks = [*_checks(ledger, differing, numbers, source), *_functional(loaded, fresh, settings)]
    shown = {name: figure for name, figure in probe.items() if name.removesuffix("_fresh") not in probe.keys() - {name}}
    return Verdict("verify", checks=checks, metrics={"format": file.format, "tensors": len(memory), **shown})


def _say(source: dict[str, Any], ledger: Ledger) -> None:
    say(f"verify: {source['file']}: {source['format']}{_known(source)}")
    for sentence in ledger.interpolated:
        say(f"verify: {sentence}")


def _known(source: dict[str, Any]) -> str:
    if not (known := source["known"]):
        return ""
    proof = "proved by its sha256" if known["proved"] else "by its name only, no digest of it is public"
    return f"; {known['name']} of {known['origin']}, {proof}"


def _load(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put every tensor in its place; a state dict's tensors are the module's own."""
    places = encoder.state_dict()
    assert set(places) == set(tensors)
    with torch.no_grad():
        for key, place in places.items():
            place.copy_(tensors[key])


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


def _probe(numbers: Numbers, images: int, loaded: Functional | None, fresh: Functional | None) -> dict[str, Any]:
    probe: dict[str, Any] = {
        "trained_matrices": round(1 - len(numbers.random) / numbers.matrices, DIGITS),
        "untouched_tensors": len(numbers.untouched),
        "distance_to_fresh": round(numbers.distance, DIGITS),
        "images": images,
    }
    if loaded is not None and fresh is not None:
        probe |= {name: round(figure, DIGITS) for name, figure in figures(loaded, fresh).items()}
    return probe


def _checks(ledger: Ledger, differing: list[str], numbers: Numbers, source: dict[str, Any]) -> list[Check]:
    tensors = len(ledger.loaded) + len(ledger.converted)
    random = len(numbers.random)
    return [
        check("weights.source", "info", 0, 1, f"{source['file']} is {source['format']}{_known(source)}"),
        check("weights.ledger", "info", 0, tensors,
              f"{len(ledger.loaded)} tensors loaded as they are, {len(ledger.converted)} converted, "
              f"{len(ledger.expected_missing)} computed by the encoder, "
              f"{len(ledger.unexpected) + sum(ledger.other.values())} of the file not used",
              examples=[*ledger.unexpected, *(f"{name}: {count} tensors" for name, count in ledger.other.items())]),
        check("weights.interpolated", "info", 0, tensors, "; ".join(ledger.interpolated) or "nothing is interpolated"),
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
    ]  # fmt: skip


def _functional(loaded: Functional | None, fresh: Functional | None, settings: VerifySettings) -> list[Check]:
    if loaded is None or fresh is None:
        text = "no dataset was given: only the file's numbers were looked at"
        return [check("weights.agreement", "info", 0, 0, text)]
    return functional_checks(loaded, fresh, settings)
