"""Trains ramflow's two small models from pictures that are not in the sample.

    .venv/bin/python sample/build_models.py --openclipart /usr/share/openclipart --sample sample

Writes models/swin, models/clip and models/figures.json under the sample's folder. CPU, a fixed seed, about
40 minutes on two quiet cores. Run build_sample.py first: pool.txt says which pictures may be used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pool
import timm
import torch
import transformers

Trainer = Callable[[pool.Part, pool.Part, Path, int, int], dict[str, object]]


def build_swin(train: pool.Part, held: pool.Part, folder: Path, epochs: int, seed: int) -> dict[str, object]:
    """Train and save the Swin; return its figures."""
    import train_swin

    keywords = pool.frequent_keywords(train)
    train_swin.save(train_swin.train(train, keywords, epochs, seed), keywords, folder)
    return {"classes": len(keywords), "held_out": train_swin.figures(folder, held, keywords)}


def build_clip(train: pool.Part, held: pool.Part, folder: Path, epochs: int, seed: int) -> dict[str, object]:
    """Train and save the CLIP; return its figures."""
    import train_clip

    tokenizer = train_clip.build_tokenizer(train)
    train_clip.save(train_clip.train(train, tokenizer, epochs, seed), tokenizer, folder)
    return {"vocabulary": len(tokenizer), "held_out": train_clip.figures(folder, held)}


MODELS: dict[str, tuple[Trainer, int]] = {"swin": (build_swin, 40), "clip": (build_clip, 16)}


def record(sample: Path, name: str, figures: dict[str, object]) -> None:
    """Put one model's figures into models/figures.json, leaving the other's."""
    path = sample / "models" / "figures.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | {name: figures}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def build(arguments: argparse.Namespace, name: str, train: pool.Part, held: pool.Part) -> dict[str, object]:
    """Build one model and return what figures.json says of it."""
    trainer, epochs = MODELS[name]
    epochs = arguments.epochs or epochs
    folder, started = arguments.sample / "models" / name, time.monotonic()
    found = trainer(train, held, folder, epochs, arguments.seed)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
    weights = (folder / "model.safetensors").read_bytes()
    return found | {
        "seed": arguments.seed, "epochs": epochs, "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started), "data": "Open Clip Art 0.18, pictures of pool.txt",
        "pool_sha256": hashlib.sha256((arguments.sample / "pool.txt").read_bytes()).hexdigest(),
        "train_pictures": len(train.pictures), "held_out_pictures": len(held.pictures),
        "bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest(),
        "torch": torch.__version__, "timm": timm.__version__, "transformers": transformers.__version__,
    }


def main() -> int:
    """Read the arguments, load the pool, build what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart"), help="with svg/ and png/")
    parser.add_argument("--sample", type=Path, required=True, help="folder build_sample.py wrote")
    parser.add_argument("--only", choices=sorted(MODELS), help="build one model (default: both)")
    parser.add_argument("--epochs", type=int, help="instead of each model's own number")
    parser.add_argument("--seed", type=int, default=18, help="seed of every choice (default: 18)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    arguments = parser.parse_args()
    pool_file = arguments.sample / "pool.txt"
    if not pool_file.is_file():
        print(f"build_models: --sample {arguments.sample}: no pool.txt; run build_sample.py first", file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    train, held = pool.load(arguments.openclipart, pool_file, arguments.seed)
    print(f"pool: {len(train.pictures)} pictures to train on, {len(held.pictures)} held out", flush=True)
    for name in [arguments.only] if arguments.only else MODELS:
        figures = build(arguments, name, train, held)
        record(arguments.sample, name, figures)
        print(json.dumps({name: figures}, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
