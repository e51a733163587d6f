"""``ramflow export``: a trained model or verified weights in the layouts that the public code reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from ramflow.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="output of train: write a RAM++ checkpoint of it")
    what.add_argument("--weights", type=Path, metavar="DIR", help="output of verify: write the encoder alone")
    parser.add_argument("--layout", choices=("microsoft", "timm"), help="key names of the encoder alone")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE",
                        help="file to write: .pth (torch.save), or for --weights also .safetensors")  # fmt: skip
    parser.set_defaults(run=_run)


def _run(a: argparse.Namespace) -> None:
    if a.out.is_dir() or a.out.suffix not in (".pth", ".safetensors"):
        raise UserError(f"--out {a.out}: give a file that ends in .pth or .safetensors")
    if a.model:
        if a.layout or a.out.suffix != ".pth":
            raise UserError("--model is written as a RAM++ checkpoint: leave out --layout, and end --out in .pth")
        _export_model(a.model, a.out)
    elif not a.layout:
        raise UserError("--weights needs --layout microsoft or timm")
    else:
        _export_encoder(a.weights, a.layout, a.out)


def _export_model(directory: Path, out: Path) -> None:
    from ramflow.model.saved import load_model
    from ramflow.progress import say
    from ramflow.weights.upstream import write_ram_plus

    tensors = write_ram_plus(load_model(directory).model, out)
    say(f"export: {tensors} tensors of {directory} as a RAM++ checkpoint, {out}")


def _export_encoder(directory: Path, layout: str, out: Path) -> None:
    from safetensors.torch import save_file

    from ramflow import storage
    from ramflow.model.encoder import Swin
    from ramflow.progress import say
    from ramflow.weights.attest import check_attested, load_encoder, read_attestation
    from ramflow.weights.upstream import encoder_state, write_torch

    attestation = read_attestation(directory)
    encoder = Swin(attestation.encoder.name, attestation.encoder.options)
    load_encoder(encoder.swin, directory)
    check_attested(encoder.swin.state_dict(), attestation)
    state = encoder_state(encoder, dict(encoder.swin.state_dict()), layout)
    if out.suffix == ".safetensors":
        with storage.whole_file(out) as temporary:
            save_file(dict(state), temporary)
    else:
        write_torch({"model": state} if layout == "microsoft" else dict(state), out)
    say(f"export: {len(state)} tensors of {directory} in {layout}'s layout, {out}")
