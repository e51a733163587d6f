"""Console logs in the public code's form, from figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Figures = list[dict[str, float]]


def row(epoch: int, step: int, steps: int, values: dict[str, float]) -> str:
    figures = "  ".join(f"{name}: {value:.6f}" for name, value in values.items())
    return (
        f"Train Epoch: [{epoch}]  [{step:5d}/{steps}]  eta: 3:02:11  {figures}  time: 0.61  data: 0.00  max mem: 36012"
    )


def console(
    path: Path, rows: Figures, *, steps: int = 9303, first: int = 0, every: int = 50, epoch: int = 0, head: bool = True,
    samples: int = 0, world: int = 0,
) -> Path:  # fmt: skip
    """One epoch's rows, every ``every`` steps from ``first`` on, after what is printed at the start."""
    lines = [f"| distributed init (rank 0, word {world}): env://"] if world else []
    lines += [f"number of training samples: {samples}"] if samples else []
    lines += ["Creating RAM model", "### Load Vision Backbone swin_l", "Start training"] if head else []
    lines += [row(epoch, first + every * i, steps, values) for i, values in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def log_txt(path: Path, epochs: list[dict[str, Any]]) -> Path:
    """The public code's log.txt: an object an epoch, figures as text."""
    lines = [{**{f"train_{k}": f"{v:.3f}" for k, v in values.items()}, "epoch": i} for i, values in enumerate(epochs)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
