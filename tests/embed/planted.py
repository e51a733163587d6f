"""Real vectors to plant faults in: the sample's tags, and the public tag list, through the sample's CLIP."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPTextModelWithProjection

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.encoder import TextEncoder
from ramflow.tags import read_tags

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "sample" / "models" / "clip"
DESCRIPTIONS = ROOT / "sample" / "descriptions.json"
TAGS = ROOT / "sample" / "tags.txt"
PUBLIC_TAGS = ROOT.parent / "shared" / "reference" / "recognize-anything" / "ram_tag_list.txt"


@lru_cache
def encoder() -> TextEncoder:
    return TextEncoder(CLIP)


def encode(texts: list[str]) -> torch.Tensor:
    return encoder().encode(texts, 256)


@lru_cache
def sample() -> TagEmbeddings:
    """The sample's 150 tags with 2 to 8 descriptions each."""
    texts = {tag: own for item in json.loads(DESCRIPTIONS.read_text()) for tag, own in item.items()}
    table = read_tags(TAGS)
    rows = [encode(texts[name]) for name in table.names]
    embeddings = torch.zeros(len(rows), max(map(len, rows)), encoder().width)
    mask = torch.zeros(embeddings.shape[:2], dtype=torch.bool)
    for tag, own in enumerate(rows):
        embeddings[tag, : len(own)], mask[tag, : len(own)] = own, True
    return TagEmbeddings(embeddings, mask, table.digest, encoder().identity)


def public(*templates: str) -> TagEmbeddings:
    """The public list's 4585 tags, a row a template; the test is skipped where the list is not here."""
    if not PUBLIC_TAGS.exists():
        pytest.skip("the public tag list is not here (../shared is absent)")
    return plain(torch.stack([_public(template) for template in templates], dim=1))


@lru_cache
def _public(template: str) -> torch.Tensor:
    return encode([template.replace("{}", name) for name in read_tags(PUBLIC_TAGS).names])


def plain(rows: torch.Tensor, mask: torch.Tensor | None = None) -> TagEmbeddings:
    """Embeddings [tags, descriptions, width] without metadata."""
    mask = torch.ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask
    return TagEmbeddings(rows.float().contiguous(), mask, "", {})


def chosen(vectors: TagEmbeddings, tags: list[int]) -> TagEmbeddings:
    """Tags of a file in another order or number."""
    return plain(vectors.embeddings[tags], vectors.mask[tags])


def changed(vectors: TagEmbeddings, rows: torch.Tensor) -> TagEmbeddings:
    """Other rows under the same mask."""
    return plain(rows * vectors.mask[..., None], vectors.mask)


def averaged(vectors: TagEmbeddings) -> TagEmbeddings:
    """One row a tag, the unit mean of its rows: what the public helper made."""
    return plain(normalize(vectors.embeddings.sum(dim=1), dim=-1)[:, None])


def kinds(comparison) -> list[str]:
    return [d.kind for d in comparison.diagnoses]


def faults(comparison) -> list[str]:
    return [d.kind for d in comparison.diagnoses if not d.harmless]


@lru_cache
def other_clip(layers: int, width: int) -> TagEmbeddings:
    """The first texts of the public list by another encoder: the CLIP without its last layers, projected elsewhere."""
    other = CLIPTextModelWithProjection.from_pretrained(CLIP, dtype=torch.float32).eval()
    other.text_model.encoder.layers = other.text_model.encoder.layers[:layers]
    draw = torch.Generator().manual_seed(layers)
    texts = [f"a photo of a {name}." for name in read_tags(PUBLIC_TAGS).names]
    ids = encoder().tokenize(texts).ids
    rows = torch.empty(len(ids), 128)
    with torch.inference_mode():
        for length in set(map(len, ids)):
            some = [place for place, own in enumerate(ids) if len(own) == length]
            rows[some] = other.text_model(torch.tensor([ids[place] for place in some])).pooler_output
    return plain(normalize(rows @ torch.randn(128, width, generator=draw), dim=-1)[:, None])
