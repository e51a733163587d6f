"""Description re-weighting: a tag's query is a weighted sum of its descriptions, weighted by the image (RAM++, 3.3)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

INITIAL_SCALE = math.log(1 / 0.07)
MAX_SCALE = math.log(100)


class Reweighting(nn.Module):
    """Weights a tag's descriptions by their similarity to the image, as one product for the whole batch (F48)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    def direction(self, image: torch.Tensor) -> torch.Tensor:
        """Class tokens [batch, width] of any length, made as long as similarities are to be scaled."""
        return self.scale.clamp(max=MAX_SCALE).exp() * F.normalize(image, dim=-1)

    def forward(self, direction: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tag queries [batch, tags, width].

        Args:
            direction: from :meth:`direction` [batch, width].
            embeddings: frozen unit description vectors [tags, descriptions, width].
            mask: true where a description exists [tags, descriptions].
        """
        tags, descriptions, width = embeddings.shape
        logits = (embeddings.reshape(-1, width) @ direction.T).T.unflatten(1, (tags, descriptions))
        weights = logits.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(embeddings.dtype)
        return (weights.transpose(0, 1) @ embeddings).transpose(0, 1)
