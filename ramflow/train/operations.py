"""Multiply-adds of the parts of RAM++, an image, and the shapes that they follow from.

Counted are matrix products and convolutions, each multiply-add once (two FLOPs); what is by element is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ramflow.model.encoder import Swin
from ramflow.model.execution import Execution
from ramflow.settings import HeadSettings, Settings

TAGS, DESCRIPTIONS, CLIP_WIDTH = 4585, 51, 512
"""Of the public model."""


@dataclass(frozen=True)
class StageShape:
    """Equal blocks of a Swin."""

    tokens: int
    padded: int
    """Tokens within windows, where these stand out over the image."""
    window: int
    """Tokens of a window."""
    width: int
    hidden: int
    blocks: int
    merges: bool
    """Whether a merging layer leads to it."""

    @property
    def block(self) -> int:
        """Multiply-adds of a block: query, key, value and output; scores and what they weigh; feed-forward."""
        attention = self.padded * (4 * self.width**2 + 2 * self.window * self.width)
        return attention + 2 * self.tokens * self.width * self.hidden


@dataclass(frozen=True)
class EncoderShape:
    """A Swin."""

    image_size: int
    patch: int
    stages: tuple[StageShape, ...]
    width: int
    parameters: int

    @property
    def tokens(self) -> int:
        """That the head sees, with the class token."""
        return 1 + self.stages[-1].tokens

    @property
    def operations(self) -> int:
        """Multiply-adds of a forward pass."""
        return self.between + sum(s.blocks * s.block for s in self.stages)

    @property
    def between(self) -> int:
        """Of it, the first patches and the merging layers."""
        merging = sum(s.tokens * 2 * s.width * s.width for s in self.stages if s.merges)  # 4 x width / 2 -> width
        return self.stages[0].tokens * 3 * self.patch**2 * self.stages[0].width + merging

    def recomputed(self, execution: Execution) -> int:
        """Multiply-adds that the backward pass does again."""
        stages = {"none": (), "selective": self.stages[:1], "blocks": self.stages}[execution.recompute]
        again = sum(s.blocks * s.block for s in stages) + self.between * (execution.recompute == "blocks")
        # attention's scores and output are computed again from query, key and value, whatever the mode
        return again + sum(s.blocks * 2 * s.padded * s.window * s.width for s in self.stages)


@dataclass(frozen=True)
class TeacherShape:
    """The CLIP image encoder; the defaults are ViT-B/16's at 224 pixels."""

    image_size: int = 224
    patch: int = 16
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    projection: int = CLIP_WIDTH

    @property
    def operations(self) -> int:
        """Multiply-adds of a forward pass."""
        patches = (self.image_size // self.patch) ** 2
        tokens = 1 + patches
        layer = tokens * (4 * self.width**2 + 2 * self.width * self.hidden) + 2 * tokens**2 * self.width
        return patches * 3 * self.patch**2 * self.width + self.layers * layer + self.width * self.projection

    @property
    def parameters(self) -> int:
        """Number of weights."""
        layer = 4 * self.width * (self.width + 1) + 2 * self.width * self.hidden + self.hidden + 5 * self.width
        tokens = 2 + (self.image_size // self.patch) ** 2
        embedding = self.width * (3 * self.patch**2 + tokens)
        return self.layers * layer + embedding + 4 * self.width + self.width * self.projection


@dataclass(frozen=True)
class ModelShape:
    """RAM++ with its teacher."""

    encoder: EncoderShape
    head: HeadSettings
    teacher: TeacherShape = TeacherShape()
    tags: int = TAGS
    descriptions: int = DESCRIPTIONS
    clip_width: int = CLIP_WIDTH

    @property
    def parameters(self) -> int:
        """Trainable weights."""
        h, w, ff = self.head.hidden, self.clip_width, self.head.feed_forward
        layer = 2 * h * (h + 1) + 2 * h * (w + 1) + 2 * h * ff + ff + h + 4 * h
        head = h * (w + 1) + self.head.layers * layer + h + 1
        return self.encoder.parameters + w * (self.encoder.width + 1) + head + 1

    def folds(self) -> bool:
        """Whether folding the head's query and output projections into the image side saves work."""
        return self.head.heads * self.encoder.tokens < self.head.hidden

    def head_operations(self, queries: int, fold: bool) -> int:
        """Multiply-adds of the head's forward pass for one image and ``queries`` queries.

        What queries look at is made twice, for the tags and for the captions.
        """
        h, w, ff, tokens = self.head.hidden, self.clip_width, self.head.feed_forward, self.encoder.tokens
        if fold and self.folds():
            attention = 2 * self.head.heads * tokens * h
            image = 2 * tokens * h * w + 2 * tokens * h * h
        else:
            attention = 2 * h * h + 2 * tokens * h
            image = 2 * tokens * h * w
        return queries * (w * h + h + self.head.layers * (attention + 2 * h * ff)) + 2 * self.head.layers * image

    @property
    def projection_operations(self) -> int:
        """Of the linear layer from encoder to head."""
        return self.encoder.tokens * self.encoder.width * self.clip_width

    @property
    def reweighting_operations(self) -> int:
        """Similarities of image and descriptions, and their weighted sum."""
        return 2 * self.tags * self.descriptions * self.clip_width


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of a training step, an image, by phase."""

    teacher: int
    encoder: int
    """Forward, with the projection to the head's tokens."""
    head: int
    """Re-weighting and head, forward and backward."""
    backward: int
    """Of encoder and projection."""
    recomputed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.teacher + self.encoder + self.head + self.backward + self.recomputed

    @property
    def flops(self) -> dict[str, float]:
        """FLOPs by the phases that :mod:`ramflow.train.step` names."""
        return {
            "teacher": 2.0 * self.teacher,
            "encoder forward": 2.0 * self.encoder,
            "head and losses": 2.0 * self.head,
            "encoder backward": 2.0 * (self.backward + self.recomputed),
        }


def operations(shape: ModelShape, captions: int, execution: Execution) -> Operations:
    """Of a training step, an image, that meets ``captions`` captions.

    A product has two gradients, each of its own size; the frozen descriptions and the captions take none. Captions are
    projected once for all images, which is left out.
    """
    encoder = shape.encoder.operations + shape.projection_operations
    queries = shape.tags + captions
    project = shape.clip_width * shape.head.hidden
    head = 3 * (shape.head_operations(queries, execution.fold) - captions * project) + 2 * shape.reweighting_operations
    pixels = shape.encoder.stages[0].tokens * 3 * shape.encoder.patch**2 * shape.encoder.stages[0].width
    return Operations(
        teacher=shape.teacher.operations,
        encoder=encoder,
        head=head,
        backward=2 * encoder - pixels,
        recomputed=shape.encoder.recomputed(execution) if execution.fused else 0,
    )


def encoder_shape(encoder: Swin) -> EncoderShape:
    """Read off the layers of an encoder."""
    swin: Any = encoder.swin
    stages = []
    for stage in swin.layers:
        block = stage.blocks[0]
        sides, window = block.input_resolution, block.window_size
        padded = math.prod(-(-side // w) * w for side, w in zip(sides, window, strict=True))
        merges = not isinstance(stage.downsample, torch.nn.Identity)
        hidden = block.mlp.fc1.out_features
        stages.append(
            StageShape(math.prod(sides), padded, math.prod(window), block.dim, hidden, len(stage.blocks), merges)
        )
    parameters = sum(p.numel() for p in swin.parameters())
    return EncoderShape(encoder.image_size, swin.patch_embed.patch_size[0], tuple(stages), encoder.width, parameters)


def shape_of(settings: Settings, tags: int = TAGS, descriptions: int = DESCRIPTIONS) -> ModelShape:
    """The model of a recipe, with the public teacher; nothing of its size is made."""
    with torch.device("meta"):
        encoder = Swin(settings.verify.encoder, settings.verify.encoder_options)
    return ModelShape(encoder_shape(encoder), settings.train.head, tags=tags, descriptions=descriptions)
