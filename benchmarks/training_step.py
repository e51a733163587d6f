"""A whole training step and its re-weighting, against a plain implementation of what is published, in turns.

Also what head and re-weighting keep for the backward pass. The plain side is ``tests/reference``: timm's Swin, the loop
over images, all queries at once, sums of losses, torch's AdamW as it comes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_function

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ramflow.model.execution import Recompute
    from ramflow.model.losses import Wanted
    from ramflow.model.ram_plus import RamPlus
    from tests.reference.ram_plus import Batch, PlainRamPlus

ENCODER, TAGS, DESCRIPTIONS, WIDTH = "swin_large_patch4_window7_224", 4585, 51, 512
TINY: dict[str, Any] = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
"""timm options of what stands for Swin-L at a smaller scale."""
STEP_BATCH, REWEIGHTING_BATCH = 2, 8
THREADS = 2
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
PRODUCTS = 20
"""Products of a slice of the head's feed-forward layer that are timed together."""
HEAD = {"hidden": 768, "layers": 2, "heads": 4, "feed_forward": 3072, "dropout": 0.1}
PLAIN = "plain implementation"
MEBIBYTE = 1 << 20


def run(options: Options) -> list[Figure]:
    """Seconds of a step and of the re-weighting, and MiB that head and re-weighting keep; Swin-L at scale 1."""
    full = options.scale >= 1
    step, reweighting, kept, monitors = (
        run_function(f"benchmarks.training_step:{name}", options.rounds, full, threads=THREADS).result
        for name in ("steps", "reweighting", "kept", "monitors")
    )
    size = f"{'Swin-L 224' if full else 'a tiny Swin'}, {_tags(full)} x {DESCRIPTIONS}"
    products = (
        f"matrix products alone, at the rate of the largest: {step['gigaflop'][0]:,.0f} GFLOP, "
        f"{median(step['products']):.1f} s"
    )
    fixed = f"and {kept['fixed']:.0f} MiB in all, whatever the batch: gradients of the parameters"
    return [
        Figure("training_step.step", f"training step on CPU, batch {STEP_BATCH}, {size}", "s",
               step["ours"], step["plain"], PLAIN, at_least=1.5 if full else None, note=products),
        Figure("training_step.selective", "the same step with selective recomputation", "s",
               step["selective"], step["ours"], "nothing recomputed", at_least=0.95 if full else None),
        Figure("training_step.monitors", "monitors at their default interval", "% of the training's time",
               monitors["share"], limit=3, note=monitors["note"]),
        Figure("training_step.reweighting", f"re-weighting, batch {REWEIGHTING_BATCH}, {_tags(full)} x {DESCRIPTIONS}",
               "s", reweighting["ours"], reweighting["plain"], PLAIN, at_least=10 if full else None),
        Figure("training_step.kept", f"kept by head and re-weighting, {size}", "MiB an image",
               [kept["ours"]], [kept["plain"]], PLAIN, limit=10, note=fixed),
    ]  # fmt: skip


def steps(rounds: int, full: bool) -> dict[str, list[float]]:
    """Seconds of whole steps: forward, backward, clipping, AdamW; and what the products of ours would take alone."""
    import torch
    from torch.profiler import profile

    model, plain = models(full)
    images, wanted, batch = data(model, STEP_BATCH)
    mask = torch.ones(len(model.embeddings), dtype=torch.bool)

    def our_loss() -> Tensor:
        return torch.stack(_ours(model, model.tokens(images), wanted, mask)).sum()

    def plain_loss() -> Tensor:
        return torch.stack(plain.losses(plain.tokens(images), batch)).sum()

    ours = _step(model, our_loss, torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=0.05, fused=True))

    def recomputed(recompute: Recompute) -> Callable[[], None]:
        def step() -> None:
            model.execution = replace(model.execution, recompute=recompute)
            ours()

        return step

    sides = {
        "ours": recomputed("none"),
        "selective": recomputed("selective"),
        "plain": _step(plain, plain_loss, torch.optim.AdamW(plain.parameters(), 1e-5, weight_decay=0.05)),
    }
    with profile(with_flops=True) as profiled:
        sides["ours"]()
    rows, factors = torch.randn(1024, HEAD["hidden"]), torch.randn(HEAD["hidden"], HEAD["feed_forward"])
    sides["products"] = lambda: [rows @ factors for _ in range(PRODUCTS)]
    seconds = in_turns(sides, rounds, warm_up=3)
    gigaflop = sum(event.flops for event in profiled.key_averages() if event.key in MATRIX_PRODUCTS) / 1e9
    rate = PRODUCTS * 2 * len(rows) * factors.numel() / 1e9
    return seconds | {"products": [each * gigaflop / rate for each in seconds["products"]], "gigaflop": [gigaflop]}


def reweighting(rounds: int, full: bool) -> dict[str, list[float]]:
    """Seconds of tag queries and their backward pass, from class tokens."""
    import torch

    from ramflow.model.reweighting import Reweighting
    from tests.reference.ram_plus import Reweighting as PlainReweighting

    embeddings, mask = vectors(full)
    ours, plain = Reweighting(), PlainReweighting()
    image = torch.randn(REWEIGHTING_BATCH, WIDTH, requires_grad=True)
    gradient = torch.randn(REWEIGHTING_BATCH, len(embeddings), WIDTH)

    def our_pass() -> None:
        ours(ours.direction(image), embeddings, mask).backward(gradient)

    return in_turns({"ours": our_pass, "plain": lambda: plain(image, embeddings, mask).backward(gradient)}, rounds)


def monitors(rounds: int, full: bool) -> dict[str, Any]:
    """What measuring each loss's gradient adds to training, percent, in steps of the engine; batch 2."""
    import torch

    from ramflow.model.preprocessing import Preprocessing
    from ramflow.settings import TrainSettings
    from ramflow.train.samples import Batch
    from ramflow.train.schedule import make_optimizer
    from ramflow.train.step import Engine, TagTargets
    from tests.train.engines import OPEN, WEIGHTS, Pooled

    model, _ = models(full)
    images, wanted, _ = data(model, STEP_BATCH)
    settings = TrainSettings(batch=STEP_BATCH, precision="float32")
    teacher = Pooled()
    teacher.width = WIDTH
    encoder, tags = model.encoder, TagTargets(torch.ones(len(model.embeddings), dtype=torch.bool), None)
    looks = Preprocessing(encoder.image_size, encoder.mean, encoder.std)
    engine = Engine(model, teacher, looks, tags, make_optimizer(model, settings), settings)
    pixels = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    batch = Batch(torch.arange(STEP_BATCH), pixels, pixels, wanted.targets, wanted.captions, wanted.caption_ids)
    numbers = itertools.count()

    def step(monitored: bool) -> None:
        engine.step(batch, next(numbers), 1e-5, OPEN, WEIGHTS, monitored=monitored).read()

    seconds = in_turns({"plain": partial(step, False), "monitored": partial(step, True)}, rounds, warm_up=2)
    shares = [
        100 * (monitored / plain - 1) / settings.monitor_every
        for monitored, plain in zip(seconds["monitored"], seconds["plain"], strict=True)
    ]
    times = median(m / p for m, p in zip(seconds["monitored"], seconds["plain"], strict=True))
    return {"share": shares, "note": f"every {settings.monitor_every} steps one takes {times:.2f} times as long"}


def kept(rounds: int, full: bool) -> dict[str, float]:
    """MiB an image that autograd and our functions keep after the losses, and MiB that do not grow with the batch."""
    import torch

    del rounds
    model, plain = models(full)
    mask = torch.ones(len(model.embeddings), dtype=torch.bool)
    bytes_of: dict[str, list[int]] = {"ours": [], "plain": []}
    for count in (1, 2):
        _, wanted, batch = data(model, count)
        tokens = torch.randn(count, 50, WIDTH, requires_grad=True)
        known = [*vars(wanted).values(), model.embeddings, tokens]
        ours = partial(_ours, model, tokens, wanted, mask)
        bytes_of["ours"].append(kept_bytes(ours, [*model.parameters(), *known]))
        bytes_of["plain"].append(kept_bytes(partial(plain.losses, tokens, batch), [*plain.parameters(), *known]))
    each = {name: (two - one) / MEBIBYTE for name, (one, two) in bytes_of.items()}
    return each | {"fixed": bytes_of["ours"][0] / MEBIBYTE - each["ours"]}


def kept_bytes(losses: Callable[[], Iterable[Tensor]], known: Iterable[Tensor]) -> int:
    """Bytes of the storages that autograd and its functions still keep when losses are computed, each counted once.

    What a function keeps while it works on a slice, and lets go, does not count.
    """
    import torch

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    alive: WeakSet[Kept] = WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        held = tuple(losses())
    assert all(loss.requires_grad for loss in held)
    storages = [kept.tensor.untyped_storage() for kept in alive]
    excluded = {tensor.untyped_storage().data_ptr() for tensor in known}
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in excluded}.values())


def models(full: bool, dropout: float = 0.1) -> tuple[RamPlus, PlainRamPlus]:
    """Ours and the plain one, in training mode, with the same weights."""
    import torch

    from ramflow.model.encoder import Swin
    from ramflow.model.ram_plus import RamPlus
    from ramflow.settings import HeadSettings
    from tests.reference.ram_plus import Encoder, PlainRamPlus

    torch.manual_seed(0)
    options, head = ({} if full else TINY), HEAD | {"dropout": dropout}
    embeddings, mask = vectors(full)
    ours = RamPlus(Swin(ENCODER, options, dropout), HeadSettings(**head), embeddings, mask)
    plain = PlainRamPlus(Encoder(ENCODER, options, dropout), head, embeddings, mask)
    plain.load_state_dict(ours.state_dict())
    return ours.train(), plain.train()


def vectors(full: bool) -> tuple[Tensor, Tensor]:
    """Unit description vectors, and that there are all of them."""
    import torch

    made = torch.randn(_tags(full), DESCRIPTIONS, WIDTH, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(made, dim=-1), torch.ones(made.shape[:2], dtype=torch.bool)


def data(model: RamPlus, count: int) -> tuple[Tensor, Wanted, Batch]:
    """Images and what they should give, for ours and for the plain one."""
    import torch

    from ramflow.model.losses import Wanted
    from tests.reference.ram_plus import batch_of

    draw = torch.Generator().manual_seed(2)
    tags, size = len(model.embeddings), model.encoder.image_size
    captions = torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=draw), dim=-1)
    ids = torch.arange(1, count + 1)
    targets = torch.rand(count, tags, generator=draw) < 10 / tags
    teacher = 0.3 * torch.randn(count, WIDTH, generator=draw)
    wanted = Wanted(targets, teacher, torch.ones(count, dtype=torch.bool), ids, captions, ids)
    images = torch.randn(count, 3, size, size, generator=draw)
    batch = batch_of(wanted, torch.ones(tags, dtype=torch.bool))
    for name in ("tag_weights", "caption_weights", "image_weights"):
        setattr(batch, name, getattr(batch, name).float())
    return images, wanted, batch


def in_turns(sides: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each side, a round after the other; the first ones of each are not counted.

    A process asks the system for its memory during its first steps and keeps it afterwards.
    """
    result: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, function in sides.items():
            start = time.perf_counter()
            function()
            if number >= warm_up:
                result[name].append(time.perf_counter() - start)
    return result


def _ours(model: RamPlus, tokens: Tensor, wanted: Wanted, mask: Tensor) -> tuple[Tensor, ...]:
    losses = model.losses(tokens, wanted, mask)
    return losses.tag, losses.alignment, losses.distillation


def _step(model: nn.Module, loss: Callable[[], Tensor], optimizer: Any) -> Callable[[], None]:
    import torch

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _tags(full: bool) -> int:
    return TAGS if full else 64
