"""One of two processes that begin a run together; it imports little, so that it starts soon."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from ramflow.data.vectors import read_tag_embeddings
from ramflow.errors import UserError
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import TrainSettings
from ramflow.train import start
from ramflow.train.ranks import on_every_rank
from ramflow.weights.attest import read_attestation

CPU = torch.device("cpu")
BIAS = "layers.1.blocks.0.mlp.fc1.bias"


def flip_a_bit(model: RamPlus) -> None:
    """Change the last bit of one number of the encoder, in place, as a bad memory cell does."""
    dict(model.encoder.swin.named_parameters())[BIAS].data.view(torch.int32)[3] ^= 1


def bug(model: RamPlus) -> None:
    """Fail as code does that is wrong."""
    raise ZeroDivisionError("a bug")


def rank(number: int, settings: TrainSettings, verify: Path, embed: Path, meeting: Path, out: Path) -> None:
    """Begin three times: clean, with one bit of rank 1 flipped, with a bug on rank 0; ``out`` gets what was said."""
    patience = timedelta(seconds=150)
    distributed.init_process_group("gloo", f"file://{meeting}", rank=number, world_size=2, timeout=patience)
    attestation, vectors = read_attestation(verify), read_tag_embeddings(embed)

    def begin(fault: Callable[[RamPlus], None] | None) -> None:
        model = start.build_model(settings, attestation, vectors, verify, CPU)
        if fault:
            fault(model)
            start.prove_attested(model, attestation)

    said = []
    for broken, fault in ((None, None), (1, flip_a_bit), (0, bug)):
        mine = fault if number == broken else None
        try:
            on_every_rank(lambda f=mine: begin(f), CPU)
            said.append("starts")
        except (UserError, ZeroDivisionError) as error:
            said.append(str(error))
    out.write_text(json.dumps(said), encoding="utf-8")
    distributed.destroy_process_group()
