"""The rows of every tag: its descriptions through the encoder, each distinct text once, or a file made elsewhere."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from ramflow import storage
from ramflow.data.vectors import TAGS_FILE, TagEmbeddings, read_tag_embeddings
from ramflow.embed.descriptions import Described
from ramflow.embed.encoder import TextEncoder
from ramflow.embed.files import read_embeddings
from ramflow.embed.findings import description_findings
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.tags import TagTable


@dataclass(frozen=True)
class TagTexts:
    """The texts of every tag: ``ids``, the tokens of each distinct one, and ``cut``, those over the encoder's limit."""

    described: Described
    ids: dict[str, array[int]]
    cut: set[str]


def read_texts(described: Described, encoder: TextEncoder) -> TagTexts:
    """Make tokens of the descriptions, each distinct text once."""
    texts = list(dict.fromkeys(chain.from_iterable(described.texts)))
    tokens = encoder.tokenize(texts, "embed: read descriptions")
    cut = {text for text, was_cut in zip(texts, tokens.cut, strict=True) if was_cut}
    return TagTexts(described, dict(zip(texts, tokens.ids, strict=True)), cut)


def write_tags(
    texts: TagTexts, table: TagTable, encoder: TextEncoder, batch: int, out: Path, embeddings: Path | None
) -> TagEmbeddings:
    """Write ``tags.safetensors`` into ``out``, where an earlier run did not, and read it back.

    Args:
        texts: of every tag; blank ones are masked.
        table: the tags.
        encoder: the text encoder.
        batch: texts at a time.
        out: where the file is written.
        embeddings: a file to take in place of encoding the texts.

    Raises:
        UserError: ``embeddings`` cannot be read, or is of another tag list.
    """
    if not (out / TAGS_FILE).is_file():
        (_taken(embeddings, table, encoder) if embeddings else _encoded(texts, table, encoder, batch)).write(out)
    return read_tag_embeddings(out)


def _taken(path: Path, table: TagTable, encoder: TextEncoder) -> TagEmbeddings:
    """The rows of a file. Where it does not say of which encoder they are, ours is named: the probe proves that."""
    given = read_embeddings(path, len(table))
    if given.tag_digest not in ("", table.digest):
        raise UserError(
            f"{path} was made for another tag list ({given.tag_digest[:19]}) than the dataset's ({table.digest[:19]}), "
            "though of the same length: make it again, or see `ramflow embeddings check`"
        )
    return TagEmbeddings(given.embeddings, given.mask, table.digest, given.encoder or encoder.identity)


def _encoded(texts: TagTexts, table: TagTable, encoder: TextEncoder, batch: int) -> TagEmbeddings:
    own = texts.described.texts
    most = max(map(len, own))
    mask = torch.tensor([[bool(text.strip()) for text in some] + [False] * (most - len(some)) for some in own])
    embeddings = torch.zeros(len(table), most, encoder.width)
    places = _places(texts.described, most)

    def fill() -> Iterator[int]:
        rows, rows_of = embeddings.view(-1, encoder.width), list(places.values())
        for some, vectors in encoder.encode_tokens([texts.ids[text] for text in places], batch):
            for text, vector in zip(some, vectors, strict=True):
                rows[rows_of[text]] = vector
            yield from some

    for _ in track(fill(), "embed descriptions", len(places)):
        pass
    return TagEmbeddings(embeddings, mask, table.digest, encoder.identity)


def _places(described: Described, most: int) -> dict[str, list[int]]:
    """The rows of every distinct text with a word in it, tags being ``most`` rows apart."""
    places: dict[str, list[int]] = {}
    for tag, own in enumerate(described.texts):
        for number, text in enumerate(own):
            if text.strip():
                places.setdefault(text, []).append(tag * most + number)
    return places


def write_description_findings(texts: TagTexts, table: TagTable, path: Path) -> None:
    """Write the failures of the descriptions (``findings.SCHEMA``) to ``path``, whole or not at all."""
    with storage.whole_file(path) as temporary:
        description_findings(texts.described, table.names, texts.cut).write_parquet(temporary)
