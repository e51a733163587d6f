"""RAM++ as published (arXiv 2306.03514, 2310.15200), written to be read, not to be fast.

timm's Swin as it is, a loop over images in the re-weighting, a BERT-style head over all queries at once, plain sums.
Names and shapes of parameters are those of :class:`ramflow.model.ram_plus.RamPlus`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Batch:
    """What the images of a batch should give; ``captions`` is of the same images, or of more."""

    targets: Tensor
    teacher: Tensor
    captions: Tensor
    equal: Tensor
    """True where a caption [captions] is the image's [images]."""
    tag_weights: Tensor
    """What an image's tag counts [images, tags]."""
    caption_weights: Tensor
    """What an image's caption counts [images, captions]."""
    image_weights: Tensor
    floor: Tensor | float = 0.0
    negatives: float = 1.0


def asymmetric_loss(logits: Tensor, targets: Tensor, gamma_negative: float, negatives: float = 1.0) -> Tensor:
    """Of every element, for targets of 0 to 1 (arXiv 2009.14119)."""
    p = torch.sigmoid(logits)
    not_positive = (1 - p + 0.05).clamp(max=1)
    with torch.no_grad():
        weight = (1 - not_positive) ** gamma_negative
    loss = targets * torch.log(p.clamp(min=1e-8))
    loss = loss + negatives * (1 - targets) * weight * torch.log(not_positive.clamp(min=1e-8))
    return -loss


class Encoder(nn.Module):
    """timm's Swin, tokens with their mean in front."""

    def __init__(self, name: str, options: dict[str, Any], drop_path: float = 0.0) -> None:
        super().__init__()
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        self.swin = timm.create_model(name, pretrained=False, num_classes=0, drop_path_rate=drop_path, **lists)
        self.width: int = self.swin.num_features

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.swin.forward_features(images).flatten(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


class Attention(nn.Module):
    def __init__(self, hidden: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query, self.output = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.key, self.value = nn.Linear(width, hidden), nn.Linear(width, hidden)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self.split(self.query(queries)), self.split(self.key(tokens)), self.split(self.value(tokens))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        read = self.dropout(scores.softmax(dim=-1)) @ v
        return self.output(read.permute(0, 2, 1, 3).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).permute(0, 2, 1, 3)


class Layer(nn.Module):
    def __init__(self, hidden: int, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden, width, heads, dropout)
        self.attention_norm, self.output_norm = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)
        self.expand, self.contract = nn.Linear(hidden, feed_forward), nn.Linear(feed_forward, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        x = self.attention_norm(queries + self.dropout(self.attention(queries, tokens)))
        return self.output_norm(x + self.dropout(self.contract(F.gelu(self.expand(x)))))


class Head(nn.Module):
    def __init__(self, width: int, hidden: int, layers: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.layers = nn.ModuleList(Layer(hidden, width, heads, feed_forward, dropout) for _ in range(layers))
        self.logit = nn.Linear(hidden, 1)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        x = F.relu(self.project(queries))
        for layer in self.layers:
            x = layer(x, tokens)
        return self.logit(x).squeeze(-1)


class Reweighting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Tag queries [batch, tags, width], an image after the other: weights times vectors, summed."""
        image = image / image.norm(dim=-1, keepdim=True)
        tags, descriptions, width = embeddings.shape
        logits = self.scale.exp() * image @ embeddings.reshape(-1, width).t()
        logits = logits.view(-1, tags, descriptions).masked_fill(~mask, float("-inf"))
        queries = []
        for b in range(len(image)):
            weights = F.softmax(logits[b], dim=-1)
            queries.append((weights.unsqueeze(-1) * embeddings).sum(dim=1))
        return torch.stack(queries)


class PlainRamPlus(nn.Module):
    """The model; ``losses`` gives loss_tag, loss_alignment and loss_dis as sums over images."""

    def __init__(self, encoder: nn.Module, head: dict[str, Any], embeddings: Tensor, mask: Tensor) -> None:
        super().__init__()
        width = embeddings.shape[-1]
        self.encoder = encoder
        self.image_projection = nn.Linear(encoder.width, width)  # type: ignore[arg-type]
        self.reweighting = Reweighting()
        self.head = Head(width, **head)
        self.embeddings, self.mask = embeddings, mask

    def tokens(self, images: Tensor) -> Tensor:
        return self.image_projection(self.encoder(images))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens(images)
        return self.head(self.reweighting(tokens[:, 0], self.embeddings, self.mask), tokens)

    def losses(self, tokens: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        tags = self.reweighting(tokens[:, 0], self.embeddings, self.mask)
        captions = batch.captions.expand(len(tokens), -1, -1)
        logits = self.head(torch.cat([tags, captions], dim=1), tokens)
        tag_logits, caption_logits = logits.split([tags.shape[1], captions.shape[1]], dim=1)
        soft = torch.where(batch.targets, 1.0, torch.as_tensor(batch.floor, dtype=tokens.dtype))
        tag = (batch.tag_weights * asymmetric_loss(tag_logits, soft, 7)).sum()
        pairs = asymmetric_loss(caption_logits, batch.equal.to(tokens.dtype), 4, batch.negatives)
        alignment = (batch.caption_weights * pairs).sum()
        distances = (tokens[:, 0] - batch.teacher).abs().mean(dim=1)
        return tag, alignment, (batch.image_weights * distances).sum()


def batch_of(wanted: Any, tag_mask: Tensor, floor: Tensor | None = None, negatives: float = 1.0) -> Batch:
    """The same batch as ramflow has it (:class:`ramflow.model.losses.Wanted`)."""
    captioned = wanted.valid & (wanted.caption_ids > 0)
    return Batch(
        wanted.targets,
        wanted.teacher,
        wanted.captions,
        wanted.caption_ids[:, None] == wanted.ids[None],
        tag_weights=wanted.valid[:, None].double() * tag_mask.double(),
        caption_weights=captioned[:, None].double() * (wanted.ids > 0).double(),
        image_weights=wanted.valid.double(),
        floor=0.0 if floor is None else floor,
        negatives=negatives,
    )
