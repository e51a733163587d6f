"""``ramflow export``: a trained model or verified weights in the layouts that the public code reads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ramflow.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="output of train: write a RAM++ checkpoint of it")
    what.add_argument("--weights", type=Path, metavar="DIR", help="output of verify: write the encoder alone")
    parser.add_argument("--layout", choices=("microsoft", "timm"), help="key names of the encoder alone")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE",
                        help="file to write: .pth (torch.save, as the public code wants) or .safetensors")  # fmt: skip
    parser.add_argument("--repeat", action="store_true",
                        help="for --model: give tags with fewer descriptions their own again until all have as many; "
                        "refused without it")  # fmt: skip
    parser.set_defaults(run=_run)


def _run(a: argparse.Namespace) -> None:
    if a.out.is_dir() or a.out.suffix not in (".pth", ".safetensors"):
        raise UserError(f"--out {a.out}: give a file that ends in .pth or .safetensors")
    if a.model:
        if a.layout:
            raise UserError("--model is written in the public RAM++'s layout: leave out --layout")
        _export_model(a.model, a.out, a.repeat)
    elif a.repeat:
        raise UserError("--repeat goes with --model: an encoder alone has no descriptions")
    elif not a.layout:
        raise UserError("--weights needs --layout microsoft or timm")
    else:
        _export_encoder(a.weights, a.layout, a.out)


def _export_model(directory: Path, out: Path, repeat: bool) -> None:
    from ramflow.model.saved import FOLDER, load_model
    from ramflow.progress import say
    from ramflow.weights.upstream import HEADS, write_ram_plus

    if not (directory / FOLDER).is_dir():
        raise UserError(f"--model {directory}: no such folder here, or no {FOLDER}/ in it: give the output of train")
    model = load_model(directory).model
    tensors = write_ram_plus(model, out, repeat=repeat)
    say(f"export: {tensors} tensors of {directory} as a RAM++ checkpoint, {out}")
    if repeated := int((~model.mask).sum()):
        say(f"export: {repeated} descriptions are repeated, so that scores differ a little from this model's")
    heads = json.loads((directory / FOLDER / "config.json").read_text(encoding="utf-8"))["head"]["heads"]
    if heads != HEADS:
        say(f"export: its head has {heads} attention heads, which no tensor tells: set that in the public code's "
            f"configuration, which says {HEADS}")  # fmt: skip


def _export_encoder(directory: Path, layout: str, out: Path) -> None:
    from ramflow.model.encoder import Swin
    from ramflow.progress import say
    from ramflow.weights.attest import check_attested, load_encoder, read_attestation
    from ramflow.weights.upstream import encoder_state, write_state

    attestation = read_attestation(directory)
    encoder = Swin(attestation.encoder.name, attestation.encoder.options)
    load_encoder(encoder.swin, directory)
    check_attested(encoder.swin.state_dict(), attestation)
    state = encoder_state(encoder, dict(encoder.swin.state_dict()), layout)
    write_state(state, out, wrap=layout == "microsoft")
    say(f"export: {len(state)} tensors of {directory} in {layout}'s layout, {out}")
