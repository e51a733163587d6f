"""``python -m benchmarks [NAME ...]``: run benchmarks, keep their figures, print the README's table.

    python -m benchmarks --list                  what there is
    python -m benchmarks --scale 0.02            all of them, quickly
    python -m benchmarks annotations --scale 1   one of them at the size of the 4M set
    python -m benchmarks --table                 the table of the figures kept in results.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.figures import RESULTS, Options, read, save, table

BENCHMARKS = {
    "annotations": "tag and text audit and pack's pass over 3.87 M records against json.load",
    "dataset": "opening the packed set, and what a further loader process costs, against lists of dicts",
    "loader": "training images a second and core against upstream's transform",
    "cold_disk": "shards in the loader's order from a cold disk against plain files",
    "image_audit": "image audit against the bare JPEG decoder",
    "near_duplicates": "near-duplicate search by the number of hashes",
    "embedding": "descriptions and captions through CLIP's text half against the plain way",
    "activations": "what the encoder keeps for the backward pass, an image, against timm's forward pass",
    "training_step": "a training step, re-weighting and what the head keeps, against a plain implementation",
    "instabilities": "planted spikes, NaN, drift, swing and plateau: found, and false alarms",
    "weights": "verifying a Swin-L file, and a RAM++ model in the public layout",
}
"""Module and what it measures. Each has ``run(options: Options) -> list[Figure]``."""


def main() -> int:
    """Run what is named, or everything; returns 1 when a figure misses its target."""
    a = _arguments()
    if a.list:
        print("\n".join(f"{name:16} {what}" for name, what in BENCHMARKS.items()))
        return 0
    if not a.table:
        options = Options(a.work, a.scale, a.rounds)
        a.work.mkdir(parents=True, exist_ok=True)
        for name in a.names or BENCHMARKS:
            print(f"benchmarks: {name}: {BENCHMARKS[name]} ...", file=sys.stderr, flush=True)
            save(importlib.import_module(f"benchmarks.{name}").run(options), options, a.out)
    order = list(BENCHMARKS)
    records = dict(sorted(read(a.out).items(), key=lambda item: order.index(item[0].partition(".")[0])))
    print(table(records))
    return int(any(record["met"] is False for record in records.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Run benchmarks and print the README's table.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help="which; all when left out")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument("--table", action="store_true", help="run nothing: print the table of the figures kept")
    parser.add_argument("--scale", type=float, default=0.02, help="share of the 4M set's size (default 0.02)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, in turns (default 3)")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work"), help="folder of generated data")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of figures (default benchmarks/results.json)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
