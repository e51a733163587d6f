"""Verifying a Swin-L file of 900 MB, and a whole RAM++ model written and read as the public checkpoint."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Options
from benchmarks.measure import Run, run_command, run_function, warm

THREADS = 2
"""Of the processor; what the targets are stated for."""

ENCODER, CLASSES, TAGS, DESCRIPTIONS = "swin_large_patch4_window7_224", 21841, 4585, 51
TINY: dict[str, Any] = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
"""timm options of what stands for Swin-L at a smaller scale."""


def run(options: Options) -> list[Figure]:
    """Seconds and memory of ``ramflow verify``, and seconds of the round trip; Swin-L at scale 1, else a tiny one."""
    full = options.scale >= 1
    folder = options.work / ("weights" if full else "weights_tiny")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "swin.safetensors", folder / "swin.pth"]
    if not all(file.is_file() for file in files):
        _call("make", folder, full)
    warm(*files)
    runs: dict[Path, list[Run]] = {file: [] for file in files}
    trips = []
    for _ in range(options.rounds):
        for file in files:
            runs[file].append(_verify(file, folder / "out", full))
        trips.append(_call("round_trip", folder, full))
    what = f"a Swin{'-L' if full else ''} file of {files[0].stat().st_size / 1e6:.0f} MB"
    figures = [_memory(runs, what, full)]
    for file, name in zip(files, ("safetensors", "torch"), strict=True):
        walls = [r.wall for r in runs[file]]
        figures.append(
            Figure(f"weights.verify_{name}", f"`ramflow verify` of {what}, {name}", "s", walls, limit=30.0)
        )
    text = f"a RAM++ model of {trips[0]['bytes'] / 1e6:.0f} MB written and read as the public checkpoint"
    seconds, note = [trip["seconds"] for trip in trips], f"{trips[0]['keys']} keys, none lost"
    return [*figures, Figure("weights.round_trip", text, "s", seconds, limit=60.0, note=note)]


def _call(function: str, folder: Path, full: bool) -> dict[str, Any]:
    """Call a function below; at full size in a process of its own."""
    if not full:
        result: dict[str, Any] = globals()[function](str(folder), full)
        return result
    return run_function(f"benchmarks.weights:{function}", str(folder), full, threads=THREADS).result


def _memory(runs: dict[Path, list[Run]], what: str, full: bool) -> Figure:
    """Highest memory of either container as a multiple of the file; of a tiny file it says nothing."""
    rounds = zip(*([r.maxrss / file.stat().st_size for r in rs] for file, rs in runs.items()), strict=True)
    ours = [max(ratios) for ratios in rounds]
    highest = max(r.maxrss for rs in runs.values() for r in rs)
    note = f"{highest / 1e6:.0f} MB at the highest, libraries and mapped pages included (ru_maxrss)"
    return Figure("weights.verify_memory", f"`ramflow verify` of {what}, peak memory", "times the file", ours,
                  limit=2.2 if full else None, note=note)  # fmt: skip


def _verify(file: Path, out: Path, full: bool) -> Run:
    given = [] if full else ["--set", f"verify.encoder_options={json.dumps(TINY)}"]
    command = ["verify", "--weights", str(file), "--encoder", ENCODER, "--out", str(out), *given]
    return run_command([sys.executable, "-m", "ramflow.cli", *command], threads=THREADS)


def make(folder: str, full: bool) -> dict[str, int]:
    """Files of a Swin that looks trained: timm's initialisation, and to every tensor something that stands out."""
    import timm
    import torch
    from safetensors.torch import save_file

    from ramflow.weights.upstream import microsoft_name

    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    options = {} if full else {key: tuple(v) if isinstance(v, list) else v for key, v in TINY.items()}
    model: Any = timm.create_model(ENCODER, num_classes=CLASSES if full else 6, **options)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for tensor in state.values():
        rows, columns = len(tensor), tensor.numel() // len(tensor)
        direction = torch.randn(rows, 1, generator=draw) @ torch.randn(1, columns, generator=draw)
        tensor += 0.02 * direction.view_as(tensor)
    save_file(state, Path(folder) / "swin.safetensors")
    renamed = {microsoft_name(key).replace("head.fc.", "head."): tensor for key, tensor in state.items()}
    torch.save({"model": renamed | dict(model.named_buffers())}, Path(folder) / "swin.pth")
    return {"tensors": len(state)}


def round_trip(folder: str, full: bool) -> dict[str, float]:
    """Write a RAM++ model as the public checkpoint and read it; seconds, and that no key and no value was lost."""
    import torch

    from ramflow.model.encoder import Swin
    from ramflow.model.ram_plus import RamPlus
    from ramflow.settings import HeadSettings
    from ramflow.weights.upstream import read_ram_plus, write_ram_plus

    tags, descriptions = (TAGS, DESCRIPTIONS) if full else (6, 3)
    options = {} if full else TINY
    embeddings = torch.nn.functional.normalize(torch.randn(tags, descriptions, 512), dim=-1)
    mask = torch.ones(tags, descriptions, dtype=torch.bool)
    model = RamPlus(Swin(ENCODER, options), HeadSettings(), embeddings, mask)
    path = Path(folder) / "ram_plus.pth"
    start = time.perf_counter()
    keys = write_ram_plus(model, path)
    again = read_ram_plus(path, Swin(ENCODER, options), tags)
    seconds = time.perf_counter() - start
    size = path.stat().st_size
    path.unlink()
    state = again.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(again.embeddings, embeddings)
    return {"seconds": seconds, "bytes": size, "keys": keys}
