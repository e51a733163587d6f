"""embed: every description and caption through the frozen text encoder, once, and proved to belong to its tag."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from ramflow.data.audited import tag_status
from ramflow.data.dataset import Dataset
from ramflow.data.vectors import TagEmbeddings, read_tag_embeddings, write_caption_vectors
from ramflow.embed.descriptions import arrange, read_descriptions
from ramflow.embed.encoder import TextEncoder
from ramflow.embed.probe import probe_tags, row_checks, spread_check
from ramflow.settings import EmbedSettings
from ramflow.tags import TagTable
from ramflow.verdict import Check, Verdict, check


def run(settings: EmbedSettings, *, data: Path, audit: Path, descriptions: Path, clip: Path, out: Path) -> Verdict:
    """Write ``tags.safetensors`` and ``captions.safetensors`` (layout: ``ramflow/data/vectors.py``) into ``out``.

    Args:
        settings: batch size and what the probe expects.
        data: the packed dataset.
        audit: its audit, whose tag table gives the order of the tags.
        descriptions: upstream's description JSON.
        clip: folder of a CLIP in transformers layout.
        out: the directory to fill.

    Raises:
        UserError: an input is unreadable, tags have no description, or audit and dataset have different tag lists.
    """
    dataset = Dataset(data)
    table = tag_status(dataset, audit)
    described = read_descriptions(descriptions)
    texts = arrange(described, table.names, descriptions)
    encoder = TextEncoder(clip)

    checks = _description_checks(described, table.names)
    checks += _embed_tags(texts, table, encoder, settings, out)
    stored = read_tag_embeddings(out)
    rows = stored.embeddings[stored.mask]
    probe_checks, probe_metrics = probe_tags(stored, table.names, texts, encoder.encode_one, settings)
    checks += [*row_checks("tags", rows), spread_check(rows), *probe_checks]

    captions = dataset.scan().select("captions").collect()["captions"].to_list()
    checks += _embed_captions(captions, encoder, settings, out)
    metrics = {
        "tags": len(table),
        "descriptions": int(stored.mask.sum()),
        "captions": sum(map(len, captions)),
        "width": encoder.width,
        **probe_metrics,
    }
    return Verdict("embed", checks=checks, metrics=metrics)


def _embed_tags(
    texts: list[list[str]], table: TagTable, encoder: TextEncoder, settings: EmbedSettings, out: Path
) -> list[Check]:
    """Write the description vectors; blank descriptions are masked. Returns the check of texts that were cut."""
    most = max(map(len, texts))
    mask = torch.tensor([[bool(text.strip()) for text in own] + [False] * (most - len(own)) for own in texts])
    vectors, cut = _encode([t for own in texts for t in own if t.strip()], encoder, settings, "embed descriptions")
    embeddings = torch.zeros(len(texts), most, encoder.width)
    embeddings[mask] = vectors
    TagEmbeddings(embeddings, mask, table.digest, encoder.identity).write(out)
    return [_cut_check("embed.description_cut", cut, len(vectors), encoder.limit)]


def _embed_captions(
    captions: list[list[str]], encoder: TextEncoder, settings: EmbedSettings, out: Path
) -> list[Check]:
    """Write the caption vectors and return their checks. A blank caption has a row as any other text (F13)."""
    texts = list(chain.from_iterable(captions))
    vectors, cut = _encode(texts, encoder, settings, "embed captions", torch.float16)
    write_caption_vectors(out, vectors, list(map(len, captions)))
    blank = [f"row {row}" for row, text in enumerate(texts) if not text.strip()]
    return [
        _cut_check("embed.caption_cut", cut, len(texts), encoder.limit),
        check("embed.caption_empty", "warning", len(blank), len(texts),
              f"{len(blank)} of {len(texts)} captions have no word; their vectors say nothing of their images",
              examples=blank),
        *row_checks("captions", vectors),
    ]  # fmt: skip


def _encode(
    texts: list[str], encoder: TextEncoder, settings: EmbedSettings, label: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, list[str]]:
    """Vectors [texts, width], each distinct text encoded once, and the distinct texts over the encoder's limit."""
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = list(row_of)
    counts = encoder.token_counts(distinct)
    vectors = encoder.encode(distinct, counts, settings.batch, label, dtype)
    cut = [text for text, count in zip(distinct, counts, strict=True) if count > encoder.limit]
    return vectors[[row_of[text] for text in texts]], cut


def _cut_check(id: str, cut: list[str], total: int, limit: int) -> Check:
    message = f"{len(cut)} distinct texts of {total} are longer than the encoder's {limit} tokens and were cut"
    return check(id, "warning", len(cut), total, message, examples=cut)


def _description_checks(described: dict[str, list[str]], names: list[str]) -> list[Check]:
    unknown = sorted(set(described) - set(names))
    texts = {name: described[name] for name in names}
    total, most = sum(map(len, texts.values())), max(map(len, texts.values()))
    blank = [name for name, own in texts.items() for text in own if not text.strip()]
    repeated = [f"{name}: {text}" for name, own in texts.items() for text, n in Counter(own).items() if n > 1]
    few = [name for name, own in texts.items() if len(own) < most]
    return [
        check("embed.unknown_tag", "warning", len(unknown), len(described),
              f"{len(unknown)} described tags are not in the tag list and were not used", examples=unknown),
        check("embed.description_empty", "warning", len(blank), total,
              f"{len(blank)} of {total} descriptions have no word; they are masked", examples=blank),
        check("embed.description_repeated", "warning", len(repeated), total,
              f"{len(repeated)} of {total} descriptions stand more than once at their tag", examples=repeated),
        check("embed.descriptions_uneven", "info", len(few), len(texts),
              f"{len(few)} of {len(texts)} tags have fewer descriptions than others; the places left are masked",
              examples=few),
    ]  # fmt: skip
