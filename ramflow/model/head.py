"""The tagging head: queries look at the image tokens, never at one another (RAM, arXiv 2306.03514, section 3.2).

BERT-style layers without self-attention, post-norm: cross-attention, then feed-forward. As queries are independent,
any set of them (tags, captions, slices of tags) gives the same result as all together.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-12
LAYER_STD = 0.02 * 768**0.5
"""Of a layer's weights, over the square root of the width: BERT's 0.02 at its width of 768."""

QUERY_STD = 1.0
"""Of the query projection's weights: unit vectors become queries of about the image part's size.

At PyTorch's default for a linear layer the first LayerNorm drowns the query in what it read from the image, and
all tags start with one logit: the sample then learns half as fast.
"""


class CrossAttention(nn.Module):
    """Multi-head attention from queries [batch, queries, hidden] to tokens [batch, tokens, width]."""

    def __init__(self, hidden: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What each query read from the tokens [batch, queries, hidden]; scores are scaled by 1 / sqrt(head width)."""
        q, k, v = (self._split(x) for x in (self.query(queries), self.key(tokens), self.value(tokens)))
        read = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.output(read.transpose(1, 2).flatten(2))

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
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Queries after the layer [batch, queries, hidden]."""
        x = self.attention_norm(queries + self.dropout(self.attention(queries, tokens)))
        return self.output_norm(x + self.dropout(self.contract(F.gelu(self.expand(x)))))


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

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [batch, queries].

        Args:
            queries: tag or caption vectors [batch, queries, width].
            tokens: image tokens [batch, tokens, width].
        """
        x = F.relu(self.project(queries))
        for layer in self.layers:
            x = layer(x, tokens)
        return self.logit(x).squeeze(-1)
