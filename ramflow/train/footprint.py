"""Memory of a training step on a GPU, bytes: what is there always, what an image keeps, and what comes and goes.

DDP adds nothing: gradients are views of its buckets.

What an encoder block keeps follows ``ramflow/model/lean_swin.py``; a test counts it there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramflow.model.execution import Execution
from ramflow.train.operations import ModelShape, StageShape

GIB = 2**30
CONTEXT = 1.5 * GIB
"""Assumed of the driver's context, loaded kernels, cuBLAS and NCCL: what torch does not count as its own."""
FRAGMENTATION = 0.06
"""Assumed share of torch's memory that lies between tensors."""


@dataclass(frozen=True)
class Types:
    """Bytes of a number: of matrix products, and of the residual stream."""

    product: int
    stream: int

    @classmethod
    def of(cls, precision: str, execution: Execution) -> Types:
        """Of the settings ``precision`` and ``residual``."""
        bfloat16 = precision == "bfloat16"
        return cls(2 if bfloat16 else 4, 2 if bfloat16 and execution.residual == torch.bfloat16 else 4)


@dataclass(frozen=True)
class Footprint:
    """Bytes on one card."""

    fixed: dict[str, float]
    """By what."""
    saved: float
    """Kept from forward to backward, an image of the micro-batch."""
    transient: float
    """An image of the micro-batch, while a slice of tags or a block is worked on."""

    def peak(self, images: int) -> float:
        """That torch needs for micro-batches of ``images``."""
        return sum(self.fixed.values()) + images * (self.saved + self.transient)

    def largest(self, memory: float) -> int:
        """The largest micro-batch on a card of ``memory`` GiB; 0: not one image."""
        room = (memory * GIB - CONTEXT) * (1 - FRAGMENTATION) - sum(self.fixed.values())
        return max(0, int(room / (self.saved + self.transient)))


def footprint(shape: ModelShape, precision: str, execution: Execution, share: int, ema: bool) -> Footprint:
    """Of the fused step.

    Args:
        shape: of the model.
        precision: of matrix products.
        execution: mode of the encoder and slice of the head.
        share: images of a process in a batch.
        ema: whether a moving average of the weights is kept.
    """
    types = Types.of(precision, execution)
    encoder = encoder_saved(shape, types, execution)
    tokens = shape.encoder.tokens
    projection = tokens * (shape.encoder.width * types.product + shape.clip_width * (types.product + 2 * 4))
    return Footprint(
        fixed=_fixed(shape, share, ema),
        saved=encoder + projection,
        transient=max(head_transient(shape, types, execution), _block_transient(shape, types, execution)),
    )


def encoder_saved(shape: ModelShape, types: Types, execution: Execution) -> float:
    """What the encoder keeps for the backward pass, an image."""
    e, every = shape.encoder, execution.recompute == "blocks"
    pixels, first, last = 3 * e.image_size**2, e.stages[0], e.stages[-1]
    total = float(last.tokens * (last.width * 4 + 8))  # the last norm's input and statistics
    if every:
        total += pixels * 4
    else:  # of the patches: their pixels, and the norm's input and statistics
        total += pixels * types.product + first.tokens * (first.width * 4 + 8)
    for number, stage in enumerate(e.stages):
        again = every or (execution.recompute == "selective" and number == 0)
        if stage.merges:
            total += stage.tokens * (2 * stage.width * (types.stream if every else types.product) + 4 * (not every))
        if again:
            total += stage.blocks * stage.tokens * stage.width * types.stream
        else:
            total += stage.blocks * block_saved(stage, types, execution.recompute == "none")
    return total


def block_saved(stage: StageShape, types: Types, keep: bool) -> float:
    """What a block keeps when it is not computed again: 5 C and the hidden layer, with ``keep`` its GELU too."""
    numbers = 2 * stage.tokens * stage.width + 3 * stage.padded * stage.width + (1 + keep) * stage.tokens * stage.hidden
    return numbers * types.product + 8 * stage.tokens


def head_transient(shape: ModelShape, types: Types, execution: Execution) -> float:
    """A slice of the head between its forward and backward pass, an image; norms and softmax are in float32."""
    h, ff, c = shape.head.hidden, shape.head.feed_forward, types.product
    ways = 2 * ff * c + 2 * h * 4  # gradients on their way
    return execution.slice * (float(head_slice_saved(shape, types)) + ways)


def head_slice_saved(shape: ModelShape, types: Types) -> int:
    """What the head keeps of a query and image until its slice's backward pass, right after the forward pass."""
    h, ff, c = shape.head.hidden, shape.head.feed_forward, types.product
    scores, masks = shape.head.heads * shape.encoder.tokens, int(shape.head.dropout > 0)
    read = scores * (4 + masks + (c if masks or c < 4 else 0)) if shape.folds() else 3 * h * c
    attention = read + h * (c + 4 + masks)
    feed_forward = h * (c + 4 + masks) + 2 * ff * c
    return shape.clip_width * c + h * c + shape.head.layers * (attention + feed_forward) + h * c


def _block_transient(shape: ModelShape, types: Types, execution: Execution) -> float:
    """The largest block in its backward pass, an image: what it computed again, and gradients on their way."""
    stages = {"none": (), "selective": shape.encoder.stages[:1], "blocks": shape.encoder.stages}[execution.recompute]
    again = max((block_saved(s, types, True) for s in stages), default=0.0)
    ways = max(s.tokens * ((2 * s.hidden + 3 * s.width) * types.product + 8 * s.width) for s in shape.encoder.stages)
    return again + ways


def _fixed(shape: ModelShape, share: int, ema: bool) -> dict[str, float]:
    weights = 4.0 * shape.parameters
    head = 4.0 * (shape.parameters - shape.encoder.parameters)
    sizes = shape.encoder.image_size**2 + shape.teacher.image_size**2
    return {
        "weights": weights,
        "gradients": weights,
        "optimiser": 2 * weights,
        "moving average": weights * ema,
        "descriptions": 4.0 * shape.tags * shape.descriptions * shape.clip_width,
        "teacher, and its weights in half precision": 6.0 * shape.teacher.parameters,
        "gradients of the head, two losses": 2 * head,
        "monitored step: the encoder's gradients once more": 4.0 * shape.encoder.parameters,
        "two batches": 2.0 * share * (3 * sizes + shape.tags + 4 * shape.clip_width),
    }
