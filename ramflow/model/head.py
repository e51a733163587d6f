"""The tagging head: queries look at the image tokens, never at one another (RAM, arXiv 2306.03514, section 3.2).

BERT-style layers without self-attention, post-norm: cross-attention, then feed-forward. As queries are independent,
any set of them (tags, captions, slices of tags) gives the same result as all together.

What depends on the image alone (:data:`ImageSide`) is made once an image, for any number of slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ramflow.model.dropout import dropout as drop

LAYER_NORM_EPS = 1e-12
LAYER_STD = 0.02 * 768**0.5
"""Of a layer's weights, over the square root of the width: BERT's 0.02 at its width of 768."""

QUERY_STD = 1.0
"""Of the query projection's weights: unit vectors become queries of about the image part's size.

At PyTorch's default for a linear layer the first LayerNorm drowns the query in what it read from the image, and
all tags start with one logit: the sample then learns half as fast.
"""

ImageSide = tuple[torch.Tensor, ...]
"""Keys and values of one layer [batch, heads, tokens, head width]; or folded: keys and values
[batch, heads * tokens, hidden] and what is added to the scores [batch, 1, heads * tokens]."""


class CrossAttention(nn.Module):
    """Multi-head attention from queries [batch, queries, hidden] to tokens [batch, tokens, width].

    Scores are scaled by 1 / sqrt(head width). Folded, the query projection is multiplied into the keys and the output
    projection into the values: with few tokens that is cheaper than to project every query.
    """

    def __init__(self, hidden: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, hidden)

    def image_side(self, tokens: torch.Tensor, fold: bool) -> ImageSide:
        """What queries look at; folded where ``fold`` allows it and it is cheaper."""
        keys, values = self._split(self.key(tokens)), self._split(self.value(tokens))
        _, heads, count, width = keys.shape
        if not fold or heads * count >= self.query.in_features:
            return keys, values
        keys = keys / width**0.5
        into = self.query.weight.unflatten(0, (heads, width))
        out_of = self.output.weight.T.unflatten(0, (heads, width))
        bias = keys @ self.query.bias.view(heads, width, 1)
        return (keys @ into).flatten(1, 2), (values @ out_of).flatten(1, 2), bias.flatten(1)[:, None]

    def forward(self, queries: torch.Tensor, side: ImageSide) -> torch.Tensor:
        """What each query read from the image [batch, queries, hidden]."""
        dropout = self.dropout if self.training else 0.0
        if len(side) == 2:
            query = self._split(self.query(queries))
            read = F.scaled_dot_product_attention(query, *side, dropout_p=dropout)
            return self.output(read.transpose(1, 2).flatten(2))
        keys, values, bias = side
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2)).unflatten(-1, (self.heads, -1))
        weights = drop(scores.softmax(dim=-1), dropout, self.training).flatten(2)
        return torch.baddbmm(self.output.bias, weights, values)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Cross-attention and feed-forward, each with a residual and LayerNorm after it."""

    def __init__(self, hidden: int, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = CrossAttention(hidden, width, heads, dropout)
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(hidden, feed_forward)
        self.contract = nn.Linear(feed_forward, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.dropout = dropout

    def forward(self, queries: torch.Tensor, side: ImageSide) -> torch.Tensor:
        """Queries after the layer [batch, queries, hidden]."""
        x = self.attention_norm(queries + drop(self.attention(queries, side), self.dropout, self.training))
        return self.output_norm(x + drop(self.contract(F.gelu(self.expand(x))), self.dropout, self.training))


class TaggingHead(nn.Module):
    """One logit a query and image."""

    def __init__(self, width: int, hidden: int, layers: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.layers = nn.ModuleList(Layer(hidden, width, heads, feed_forward, dropout) for _ in range(layers))
        self.logit = nn.Linear(hidden, 1)
        nn.init.normal_(self.project.weight, std=QUERY_STD)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=LAYER_STD / hidden**0.5)
                nn.init.zeros_(module.bias)

    def image_sides(self, tokens: torch.Tensor, fold: bool = False) -> list[ImageSide]:
        """What queries look at, a layer each, from image tokens [batch, tokens, width]."""
        return [layer.attention.image_side(tokens, fold) for layer in self._layers()]

    def forward(self, queries: torch.Tensor, sides: Sequence[ImageSide]) -> torch.Tensor:
        """Logits [batch, queries].

        Args:
            queries: tag or caption vectors [batch, queries, width]; a batch of one is for all images.
            sides: from :meth:`image_sides`.
        """
        x = F.relu(self.project(queries)).expand(len(sides[0][0]), -1, -1)
        for layer, side in zip(self._layers(), sides, strict=True):
            x = layer(x, side)
        return self.logit(x).squeeze(-1)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]
