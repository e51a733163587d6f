"""A process that saves checkpoints until it is killed; it imports little, so that it starts soon."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ramflow.train.checkpoint import Checkpoint, Checkpoints

Tensors = dict[str, dict[str, torch.Tensor]]


def tensors_of(step: int, size: int = 1000) -> Tensors:
    """What a checkpoint of ``step`` must hold."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {f"{n}.weight": torch.randn(n + 1, size, generator=generator) for n in range(3)},
        "optimizer": {"0.weight/step": torch.tensor(float(step)), "0.weight/exp_avg": torch.full((size,), step * 0.1)},
    }


def best_of(step: int) -> int:
    """The best step so far: every third is one."""
    return step - step % 3 if step >= 3 else -1


def save(checkpoints: Checkpoints, step: int, log: Path, size: int = 1000) -> None:
    """Save ``step`` as the trainer does."""
    with log.open("a") as file:
        file.write(f"{step}\n")
    if best_of(step) == step:
        checkpoints.save_best(step, tensors_of(step, size)["model"])
    checkpoints.save(step, tensors_of(step, size), {"best_step": best_of(step), "square": step * step}, [log])


def check(checkpoints: Checkpoints, found: Checkpoint, size: int = 1000) -> None:
    """All parts of a checkpoint are those of its step."""
    step, best = found.step, best_of(found.step)
    expected = tensors_of(step, size)
    assert found.state == {"best_step": best, "square": step * step}
    assert {group: set(tensors) for group, tensors in found.tensors.items()} == {g: set(t) for g, t in expected.items()}
    assert all(torch.equal(found.tensors[g][n], tensor) for g, group in expected.items() for n, tensor in group.items())
    assert found.logs["metrics.jsonl"].read_text() == "".join(f"{n}\n" for n in range(1, step + 1))
    if best >= 0:
        weights = checkpoints.best(best)
        assert all(torch.equal(weights[name], tensor) for name, tensor in tensors_of(best, size)["model"].items())


def go_on(folder: Path, remote: str, environment: dict[str, str], size: int, pipe: Connection) -> None:
    """Go on from the newest checkpoint, for ever; the pipe is told each step that is whole: in the folder, in S3."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    checkpoints = Checkpoints(folder, 2, remote)
    found = checkpoints.load()
    step, log = 0, folder.parent / "metrics.jsonl"
    log.write_text("")
    if found:
        check(checkpoints, found, size)
        step = found.step
        log.write_bytes(found.logs["metrics.jsonl"].read_bytes())
    while True:
        step += 1
        save(checkpoints, step, log, size)
        if step % 4 == 0:
            checkpoints.wait()
            tell(pipe, whole=step, copied=step if remote else 0)
        elif step > 1:
            tell(pipe, whole=step - 1, copied=0)
        failures = checkpoints.failures()
        if failures:
            tell(pipe, failed=failures)


def tell(pipe: Connection, **what: Any) -> None:
    pipe.send(what)
