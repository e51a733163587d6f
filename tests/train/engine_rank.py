"""One of two processes that take steps together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed

from ramflow.train import ranks
from ramflow.train.guard import VALUES
from tests.train import engines
from tests.train.engines import OPEN, WEIGHTS

CPU = torch.device("cpu")


def rank(number: int, meeting: Path, out: Path) -> None:
    """Gradients of shares go to ``out``, and what else was seen, a line each."""
    torch.set_num_threads(1)
    patience = timedelta(seconds=100)
    distributed.init_process_group("gloo", f"file://{meeting}", rank=number, world_size=2, timeout=patience)
    for name, micro_batch in (("whole", 0), ("micro", 7)):
        engine = engines.engine(engines.settings(micro_batch=micro_batch))
        values = engine.step(engines.share(engines.batch(52), number, 2), 0, 1e-3, OPEN, WEIGHTS).read()
        tensors = engines.gradients(engine) | {value: torch.tensor(values[value]) for value in VALUES}
        save_file(tensors, out / f"{name}-{number}.safetensors")
    said = [_fault(number), _good(number), _memory(number), _told(number), _empty(number)]
    (out / f"said-{number}.txt").write_text("\n".join(said), encoding="utf-8")
    distributed.destroy_process_group()


def _weights(engine) -> list[torch.Tensor]:
    return [p.detach().clone() for p in engine.parameters]


def _fault(number: int) -> str:
    """An infinity in one number of one process's images stops the update of both."""
    engine = engines.engine(engines.settings())
    share = engines.share(engines.batch(52), number, 2)
    if number == 1:
        share.captions[4, 2] = float("inf")
    before = _weights(engine)
    good = engine.step(share, 0, 1e-3, OPEN, WEIGHTS).read()["good"]
    same = all(torch.equal(a, b) for a, b in zip(before, _weights(engine), strict=True))
    return "nothing moved" if same and not good else "moved"


def _good(number: int) -> str:
    engine = engines.engine(engines.settings())
    good = engine.step(engines.share(engines.batch(52), number, 2), 0, 1e-3, OPEN, WEIGHTS).read()["good"]
    return "all finite" if good else "not finite"


def _memory(number: int) -> str:
    """Memory is short on one process only: both take the smaller micro-batch."""
    engine = engines.engine(engines.settings())
    forward = engine.forward.module.forward

    def limited(pixels, wanted, negatives):
        if number == 1 and len(pixels) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(pixels, wanted, negatives)

    engine.forward.module.forward = limited
    engine.fit(engines.share(engines.batch(52), number, 2))
    return f"micro-batch {engine.micro_batch}"


def _told(number: int) -> str:
    """What one knows, all know: JSON from the first, JSON from each, SIGTERM of any."""
    told = ranks.tell({"step": 3, "rate": 0.1} if number == 0 else None, CPU)
    heard = ranks.hear([number] * (number + 1), CPU)
    engine = engines.engine(engines.settings())
    stop = engine.step(engines.share(engines.batch(52), number, 2), 0, 1e-3, OPEN, WEIGHTS, stop=number == 1)
    good = told == {"step": 3, "rate": 0.1} and heard == [[0], [1, 1]] and stop.read()["stop"] == 1
    return "told" if good else f"{told} {heard}"


def _empty(number: int) -> str:
    """The last batch of an epoch may leave a process without an image."""
    engine = engines.engine(engines.settings())
    share = engines.share(engines.batch(1), number, 2)
    values = engine.step(share, 0, 1e-3, OPEN, WEIGHTS).read()
    alone = len(share.samples) == (number == 0) and values["images"] == 1 and values["good"]
    return "empty share" if alone else f"{values}"
