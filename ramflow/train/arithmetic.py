"""What a run costs, by arithmetic that can be checked.

``python -m ramflow.train.arithmetic RECIPE --card a100-40g --cards 8`` prints it.

Operations are counted in ``operations.py``, memory in ``footprint.py``, cards are in ``cards.py``. What is assumed, and
not counted, is here and in ``footprint.py``, by name.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import Any

import torch

from ramflow.errors import UserError
from ramflow.model.execution import Execution
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import Settings, TrainSettings, read_settings
from ramflow.train.cards import Card, Products, card
from ramflow.train.footprint import CONTEXT, GIB, Footprint, footprint
from ramflow.train.operations import (
    DESCRIPTIONS,
    TAGS,
    ModelShape,
    Operations,
    TeacherShape,
    encoder_shape,
    operations,
    shape_of,
)
from ramflow.train.profiling import Expected

MOST = 0.45
"""Share of the peak that a step may reach at best. Swin-L in timm's table of training speeds does on an RTX 3090, whose
memory is fast for its products (153.8 images/s at 224 px; Swin-B with 279.7 reaches 0.36; timm's file
benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv)."""
PRODUCTS_ALONE = 0.7
"""Share of the peak that large matrix products alone reach."""
TRAFFIC = (1 / MOST - 1 / PRODUCTS_ALONE) / (71e12 / 936e9)
"""Bytes of memory traffic a FLOP that explain the rest of the time on that RTX 3090 (71 TFLOP/s, 936 GB/s)."""
LOADER = {False: 405, True: 270}
"""Images a second and core that the loader makes ready, at one size and at two (384 and 224 px), as measured in
``benchmarks/results.json``."""


@dataclass(frozen=True)
class Cost:
    """What a run of a recipe costs on some cards."""

    card: Card
    cards: int
    batch: int
    micro_batch: int
    largest: int
    """The largest micro-batch that fits."""
    operations: Operations
    footprint: Footprint
    utilisation: tuple[float, float]
    images: int
    epochs: int
    products: Products
    two_sizes: bool

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * math.ceil(self.images / self.batch)

    @property
    def memory(self) -> float:
        """GiB of a card at the recipe's micro-batch, with context and fragmentation left out."""
        return self.footprint.peak(self.micro_batch) / GIB

    @property
    def rates(self) -> tuple[float, float]:
        """Images a second of all cards together, at the lower and the higher utilisation."""
        at_peak = self.cards * self.card.peak(self.products) / (2 * self.operations.total)
        return at_peak * self.utilisation[0], at_peak * self.utilisation[1]

    @property
    def hours(self) -> tuple[float, float]:
        """At the higher and the lower utilisation."""
        short, long = (self.images * self.epochs / rate / 3600 for rate in reversed(self.rates))
        return short, long

    @property
    def loader_cores(self) -> int:
        """That keep the cards busy at the higher utilisation."""
        return math.ceil(self.rates[1] / LOADER[self.two_sizes])

    def summary(self) -> list[str]:
        """The lines that a recipe's head comment states."""
        (slow, fast), (short, long), (least, most) = self.rates, self.hours, self.utilisation
        return [
            f"cards: {self.cards} x {self.card.name}",
            f"batch: {self.batch}, {math.ceil(self.batch / self.cards)} a card, micro-batch {self.micro_batch} "
            f"(largest that fits: {self.largest}{', which train goes down to' * (self.micro_batch > self.largest)})",
            f"memory: {self.memory:.1f} GiB of torch's tensors a card, of {self.card.memory:g}",
            f"work: {2 * self.operations.total / 1e9:.0f} GFLOP an image, {self.images:,} images x {self.epochs} "
            f"epochs, {self.steps:,} steps",
            f"time: {_span(short, long)}, {slow:,.0f} to {fast:,.0f} images/s "
            f"(at {least:.0%} to {most:.0%} of {self.card.peak(self.products) / 1e12:g} TFLOP/s)",
            f"loader: {self.loader_cores} cores in all at most ({LOADER[self.two_sizes]} images/s a core)",
        ]

    def details(self) -> list[str]:
        """Operations and memory by part."""
        total = self.operations.total
        lines = [
            f"  {2 * n / 1e9:9.1f} GFLOP an image  {n / total:6.1%}  {name}"
            for name, n in vars(self.operations).items()
        ]
        lines += [f"  {n / GIB:9.2f} GiB  {name}" for name, n in self.footprint.fixed.items() if n]
        saved, passing = self.footprint.saved / 2**20, self.footprint.transient / 2**20
        lines.append(f"  {saved:9.1f} MiB an image  kept for the backward pass")
        lines.append(f"  {passing:9.1f} MiB an image  while a slice of tags or a block is worked on")
        lines.append(f"  {CONTEXT / GIB:9.2f} GiB  assumed of driver, kernels, cuBLAS and NCCL (not torch's)")
        return lines


def _span(short: float, long: float) -> str:
    return f"{short:.1f} to {long:.1f} h" if long >= 1 else f"{60 * short:.1f} to {60 * long:.1f} min"


def utilisation(card: Card, products: Products) -> tuple[float, float]:
    """Least and most share of the peak that is expected: the least where traffic grows with the card's peak (above)."""
    size = 1.0 if products == "bfloat16" else 2.0
    least = 1 / (1 / PRODUCTS_ALONE + size * TRAFFIC * card.peak(products) / (1e9 * card.bandwidth))
    return min(least, MOST), MOST


def execution_of(settings: TrainSettings) -> Execution:
    """The execution that the settings ask for."""
    return Execution(settings.recompute, getattr(torch, settings.residual), settings.slice)


def products_of(settings: TrainSettings) -> Products:
    """The kind of matrix products that the settings ask for."""
    if settings.precision == "bfloat16":
        return "bfloat16"
    return "tf32" if settings.tf32 else "float32"


def cost(settings: Settings, shape: ModelShape, on: Card, cards: int, images: int) -> Cost:
    """Of a run on ``cards`` cards ``on``, with ``images`` training images."""
    train, execution = settings.train, execution_of(settings.train)
    share = math.ceil(train.batch / cards)
    need = footprint(shape, train.precision, execution, share, bool(train.ema_decay))
    products = products_of(train)
    return Cost(
        card=on,
        cards=cards,
        batch=train.batch,
        micro_batch=min(train.micro_batch or share, share),
        largest=need.largest(on.memory),
        operations=operations(shape, train.batch, execution),
        footprint=need,
        utilisation=utilisation(on, products),
        images=images,
        epochs=train.epochs,
        products=products,
        two_sizes=shape.encoder.image_size != shape.teacher.image_size,
    )


def expected(model: RamPlus, teacher: Any, settings: TrainSettings, micro_batch: int, ranks: int) -> Expected:
    """What arithmetic says of a run's own model and teacher, for :meth:`StepProfile.table`.

    Args:
        model: the model.
        teacher: :class:`ramflow.model.teacher.Teacher`.
        settings: of the run.
        micro_batch: images that a process takes at a time.
        ranks: processes.
    """
    v = teacher.tower.config
    tags, descriptions, width = model.embeddings.shape
    clip = TeacherShape(v.image_size, v.patch_size, v.hidden_size, v.intermediate_size, v.num_hidden_layers, width)
    shape = ModelShape(encoder_shape(model.encoder), settings.head, clip, tags, descriptions, width)
    execution = execution_of(settings)
    share = math.ceil(settings.batch / ranks)
    need = footprint(shape, settings.precision, execution, share, bool(settings.ema_decay))
    flops = operations(shape, settings.batch, execution).flops
    return Expected(flops, MOST, need.peak(micro_batch) / GIB, products_of(settings))


def images_of(settings: Settings) -> int:
    """Images that a recipe expects of its data, 0 where it does not say."""
    return sum(counts.records or 0 for counts in settings.audit.expected.values())


def main(arguments: list[str] | None = None) -> None:
    """Print the cost of a recipe."""
    parser = argparse.ArgumentParser(prog="python -m ramflow.train.arithmetic", description=main.__doc__)
    parser.add_argument("recipe", help="a params file")
    parser.add_argument("--set", action="append", metavar="SECTION.KEY=VALUE", help="replace a parameter")
    parser.add_argument("--card", default="a100-40g", help="a100-40g, a100-80g, h100, ... (default %(default)s)")
    parser.add_argument("--cards", type=int, default=8, help="number of cards (default %(default)s)")
    parser.add_argument("--images", type=int, help="training images (default: the recipe's expected records)")
    parser.add_argument("--tags", type=int, default=TAGS, help="tags (default %(default)s)")
    parser.add_argument("--descriptions", type=int, default=DESCRIPTIONS, help="of a tag (default %(default)s)")
    a = parser.parse_args(arguments)
    try:
        settings, on = read_settings(a.recipe, a.set), card(a.card)
        for name in ("cards", "images", "tags", "descriptions"):
            if getattr(a, name) is not None and getattr(a, name) < 1:
                raise UserError(f"--{name} {getattr(a, name)}: give 1 or more")
        images = a.images or images_of(settings)
        if not images:
            raise UserError(f"{a.recipe} does not say how many images it is for: give --images")
        found = cost(settings, shape_of(settings, a.tags, a.descriptions), on, a.cards, images)
    except UserError as error:
        print(f"ramflow: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join([*found.summary(), "", *found.details()]))


if __name__ == "__main__":
    main()
