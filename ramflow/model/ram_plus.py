"""RAM++: an image encoder, description re-weighting and a tagging head (arXiv 2310.15200)."""

from __future__ import annotations

import torch
from torch import nn

from ramflow.model.encoder import Swin
from ramflow.model.execution import Execution
from ramflow.model.head import ImageSide, TaggingHead
from ramflow.model.losses import (
    Losses,
    Target,
    Wanted,
    alignment_target,
    asymmetric_sum,
    distillation_sum,
    tag_target,
)
from ramflow.model.reweighting import Reweighting
from ramflow.model.sliced import Queries, Tensors, sliced_loss
from ramflow.settings import HeadSettings


class RamPlus(nn.Module):
    """The model, with the frozen tag embeddings as buffers that are not part of its state dict (F04)."""

    embeddings: torch.Tensor
    mask: torch.Tensor

    def __init__(self, encoder: Swin, head: HeadSettings, embeddings: torch.Tensor, mask: torch.Tensor) -> None:
        """Put the parts together.

        Args:
            encoder: the image encoder.
            head: size of the tagging head.
            embeddings: unit description vectors [tags, descriptions, width]; width is the CLIP feature's too.
            mask: true where a description exists [tags, descriptions].
        """
        super().__init__()
        width = embeddings.shape[-1]
        self.encoder = encoder
        self.image_projection = nn.Linear(encoder.width, width)
        self.reweighting = Reweighting()
        self.head = TaggingHead(width, **head.model_dump())
        self.register_buffer("embeddings", embeddings.contiguous(), persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.execution = Execution()

    @property
    def execution(self) -> Execution:
        """How it is computed; the encoder has the same."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self._execution = execution
        self.encoder.execution = execution

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [batch, 1 + patches, width], the class token first, of normalised images [batch, 3, size, size]."""
        return self.image_projection(self.encoder(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tag logits [batch, tags]."""
        tokens = self.tokens(images)
        shared, count = self._tag_side(tokens), len(self.embeddings)
        size = self.execution.slice or count
        parts = [self._tag_logits(shared, start, min(start + size, count)) for start in range(0, count, size)]
        return torch.cat(parts, dim=1)

    def losses(
        self,
        tokens: torch.Tensor,
        wanted: Wanted,
        tag_mask: torch.Tensor,
        *,
        floor: torch.Tensor | None = None,
        negatives: float | torch.Tensor = 1.0,
    ) -> Losses:
        """The three losses of images, summed over the valid ones.

        Args:
            tokens: from :meth:`tokens`.
            wanted: what the images should give.
            tag_mask: false for tags that do not count [tags].
            floor: target of a tag where it is not positive, in 0..1 [tags]; left out: 0.
            negatives: weight of the alignment loss's negatives.
        """
        tags, captions = tag_target(wanted, tag_mask, floor), alignment_target(wanted, negatives)
        return Losses(
            tag=self._loss(self._tag_queries(tags), tokens),
            alignment=self._loss(self._caption_queries(captions, wanted.captions), tokens),
            distillation=distillation_sum(tokens[:, 0], wanted.teacher, wanted.valid),
        )

    def _loss(self, queries: Queries, tokens: torch.Tensor) -> torch.Tensor:
        if self.execution.fused:
            return sliced_loss(queries, tokens)
        logits = queries.logits(queries.shared(tokens), 0, queries.target.positive.shape[1])
        return asymmetric_sum(logits, queries.target)

    def _tag_queries(self, target: Target) -> Queries:
        parameters = [*self.reweighting.parameters(), *self.head.parameters()]
        return Queries(self._tag_side, self._tag_logits, target, parameters, self.execution.slice)

    def _caption_queries(self, target: Target, captions: torch.Tensor) -> Queries:
        def logits(shared: Tensors, start: int, stop: int) -> torch.Tensor:
            return self.head(captions[None, start:stop], self._sides(shared))

        return Queries(self._image_side, logits, target, list(self.head.parameters()), self.execution.slice)

    def _tag_side(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        return [self.reweighting.direction(tokens[:, 0]), *self._image_side(tokens)]

    def _tag_logits(self, shared: Tensors, start: int, stop: int) -> torch.Tensor:
        queries = self.reweighting(shared[0], self.embeddings[start:stop], self.mask[start:stop])
        return self.head(queries, self._sides(shared[1:]))

    def _image_side(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        return [tensor for side in self.head.image_sides(tokens, self.execution.fold) for tensor in side]

    def _sides(self, tensors: Tensors) -> list[ImageSide]:
        each = len(tensors) // len(self.head.layers)
        return [tuple(tensors[i : i + each]) for i in range(0, len(tensors), each)]
