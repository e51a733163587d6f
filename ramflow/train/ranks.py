"""What all processes of a run do and decide together; without a process group there is one, and it decides alone.

torch's own means throughout: ``torchrun`` starts the processes, ``torch.distributed`` carries what they tell one
another (NCCL between GPUs, gloo between CPUs).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from ramflow.errors import UserError
from ramflow.model.device import choose_device

T = TypeVar("T")


def join(device: str) -> torch.device:
    """Meet the other processes that ``torchrun`` started, if it did; returns the device of this one.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``, as the settings have it.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    chosen = choose_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return chosen
    if chosen.type == "cuda":
        local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= cards:
            raise UserError(f"torchrun started more processes than the {cards} GPUs here: lower --nproc-per-node")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def leave() -> None:
    """End what :func:`join` began."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; process 0 writes."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """What all processes hold, one after another along the first dimension; the shapes are equal."""
    if world() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if world() > 1:
        distributed.all_reduce(tensor)
    return tensor


def least(number: int, device: torch.device) -> int:
    """The least number that a process has."""
    if world() == 1:
        return number
    tensor = torch.tensor(number, device=device)
    distributed.all_reduce(tensor, distributed.ReduceOp.MIN)
    return int(tensor)


def copy_from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Give the tensors of all processes the values of process 0's, in place."""
    if world() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def tell(value: Any, device: torch.device) -> Any:
    """What process 0 has, of JSON; what the others hand in does not count."""
    if world() == 1:
        return value
    data = torch.tensor(list(json.dumps(value).encode()) if rank() == 0 else [], dtype=torch.uint8, device=device)
    size = torch.tensor(len(data), device=device)
    distributed.broadcast(size, 0)
    data = data if rank() == 0 else torch.empty(int(size), dtype=torch.uint8, device=device)
    distributed.broadcast(data, 0)
    return json.loads(bytes(data.tolist()))


def hear(value: Any, device: torch.device) -> list[Any]:
    """What each process has, of JSON, in order of the processes."""
    if world() == 1:
        return [value]
    data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    sizes = gather(torch.tensor([len(data)], device=device)).tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
    padded[: len(data)] = data
    parts = gather(padded).view(world(), -1).cpu()
    return [json.loads(bytes(part[:size].tolist())) for part, size in zip(parts, sizes, strict=True)]


def on_every_rank(work: Callable[[], T], device: torch.device) -> T:
    """Do ``work`` on this rank, and go on only when it was done on all: no rank waits for one that gave up.

    Args:
        work: what each rank does by itself.
        device: where this rank's tensors are.

    Raises:
        UserError: of ``work``, on a rank where it failed; on the others, which rank that was. Any other error of
            ``work`` is raised where it happened.
    """
    if world() == 1:
        return work()
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    first = least(world() if failure is None else rank(), device)
    if isinstance(failure, UserError):
        raise UserError(f"rank {rank()} of {world()}: {failure}")
    if failure is not None:
        raise failure
    if first < world():
        raise UserError(f"rank {rank()} of {world()}: rank {first} gave up, its own message says why")
    return cast(T, result)
