"""What all processes of a run decide together; without a process group there is one, and it decides alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import distributed

from ramflow.errors import UserError

T = TypeVar("T")


def on_every_rank(work: Callable[[], T], device: torch.device) -> T:
    """Do ``work`` on this rank, and go on only when it was done on all: no rank waits for one that gave up.

    Args:
        work: what each rank does by itself.
        device: where this rank's tensors are.

    Raises:
        UserError: of ``work``, on a rank where it failed; on the others, which rank that was. Any other error of
            ``work`` is raised where it happened.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return work()
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    first = torch.tensor(ranks if failure is None else rank, device=device)
    distributed.all_reduce(first, distributed.ReduceOp.MIN)
    if isinstance(failure, UserError):
        raise UserError(f"rank {rank} of {ranks}: {failure}")
    if failure is not None:
        raise failure
    if first < ranks:
        raise UserError(f"rank {rank} of {ranks}: rank {int(first)} refused to start, its own message says why")
    return cast(T, result)
