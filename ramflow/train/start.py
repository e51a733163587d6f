"""What a run starts from, proved before step 1: embeddings of this tag list, and the encoder that verify attested."""

from __future__ import annotations

from pathlib import Path

import torch

from ramflow.data.vectors import TagEmbeddings
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import TrainSettings
from ramflow.tags import TagTable
from ramflow.verdict import read_verdict
from ramflow.weights.attest import Attestation, check_attested, load_encoder

UNIT = 0.01
"""By how much the length of an embedding may differ from 1."""
SHOWN = 3


def build_model(
    settings: TrainSettings, attestation: Attestation, vectors: TagEmbeddings, verify: Path, device: torch.device
) -> RamPlus:
    """The model before step 1 on ``device``: the encoder as attested, or fresh when ``from_scratch`` says so (F05).

    The digests are of the parameters that the optimiser will change, read back from where they are (F01).

    Raises:
        UserError: ``verify`` holds no verdict, or a parameter differs from the attestation.
    """
    encoder = Swin(attestation.encoder.name, attestation.encoder.options, settings.drop_path)
    if not settings.from_scratch:
        read_verdict(verify)
        load_encoder(encoder.swin, verify)
    model = RamPlus(encoder, settings.head, vectors.embeddings, vectors.mask).to(device)
    if not settings.from_scratch:
        prove_attested(model, attestation)
    return model


def prove_attested(model: RamPlus, attestation: Attestation) -> None:
    """Recompute the digests of the encoder's parameters and compare them with the attestation's.

    Raises:
        UserError: a parameter is missing, added, or of another shape or value.
    """
    parameters = dict(model.encoder.swin.named_parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters.values())
    check_attested(parameters, attestation)


def check_embeddings(vectors: TagEmbeddings, tags: TagTable) -> None:
    """See that embeddings are of this tag list, and that every tag has one (F04, F07, F10).

    Raises:
        UserError: they are of another list, a tag has none, a row is not finite or not of length 1, or all are one.
    """
    if vectors.tag_digest != tags.digest or len(vectors.embeddings) != len(tags):
        raise UserError(
            f"embeddings were made from another tag list ({len(vectors.embeddings)} tags, {vectors.tag_digest[:19]}) "
            f"than the dataset's ({len(tags)} tags, {tags.digest[:19]}): run embed again"
        )
    unsound = ((vectors.embeddings.norm(dim=-1) - 1).abs() <= UNIT).logical_not() & vectors.mask
    empty = unsound.any(dim=1) | ~vectors.mask.any(dim=1)
    if ids := empty.nonzero().flatten().tolist():
        raise UserError(
            f"embeddings of {len(ids)} of {len(tags)} tags are missing, zero, not finite or not of length 1, first "
            f"{', '.join(tags.names[i] for i in ids[:SHOWN])}: run embed again"
        )
    if len(tags) > 1 and bool((vectors.embeddings == vectors.embeddings[:1]).all()):
        raise UserError(f"embeddings of all {len(tags)} tags are the same: run embed again")
