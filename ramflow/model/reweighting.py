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

    def forward(self, image: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tag queries [batch, tags, width].

        Args:
            image: class tokens [batch, width], any length; only their direction counts.
            embeddings: frozen unit description vectors [tags, descriptions, width].
            mask: true where a description exists [tags, descriptions].
        """
        tags, descriptions, width = embeddings.shape
        unit = F.normalize(image, dim=-1)
        logits = self.scale.clamp(max=MAX_SCALE).exp() * (unit @ embeddings.reshape(-1, width).T)
        logits = logits.view(-1, tags, descriptions).masked_fill(~mask, float("-inf"))
        weights = logits.softmax(dim=-1)
        return torch.einsum("btd,tdw->btw", weights.to(embeddings.dtype), embeddings)
