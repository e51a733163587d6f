"""RAM++: an image encoder, description re-weighting and a tagging head (arXiv 2310.15200)."""

from __future__ import annotations

import torch
from torch import nn

from ramflow.model.encoder import Swin
from ramflow.model.head import TaggingHead
from ramflow.model.losses import Losses, alignment_loss, distillation_loss, tag_loss
from ramflow.model.reweighting import Reweighting
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
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [batch, 1 + patches, width], the class token first, of normalised images [batch, 3, size, size]."""
        return self.image_projection(self.encoder(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tag logits [batch, tags]."""
        tokens = self.tokens(images)
        return self.head(self._tag_queries(tokens), tokens)

    def losses(
        self,
        tokens: torch.Tensor,
        targets: torch.Tensor,
        tag_mask: torch.Tensor,
        captions: torch.Tensor,
        has_caption: torch.Tensor,
        teacher: torch.Tensor,
    ) -> Losses:
        """The three losses of a batch, from its image tokens.

        Args:
            tokens: from :meth:`tokens`.
            targets: true where an image has a tag [batch, tags].
            tag_mask: false for tags that do not count [tags].
            captions: one caption vector an image [batch, width].
            has_caption: false where there is none [batch].
            teacher: CLIP image features of the same crops [batch, width].
        """
        queries = torch.cat([self._tag_queries(tokens), captions.expand(len(tokens), -1, -1)], dim=1)
        logits = self.head(queries, tokens)
        tags = targets.shape[1]
        return Losses(
            tag=tag_loss(logits[:, :tags], targets, tag_mask),
            alignment=alignment_loss(logits[:, tags:], captions, has_caption),
            distillation=distillation_loss(tokens[:, 0], teacher),
        )

    def _tag_queries(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.reweighting(tokens[:, 0], self.embeddings, self.mask)
