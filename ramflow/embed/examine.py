"""What ``ramflow embeddings check`` does: a file on its own, against a text encoder, and against a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ramflow import hub, storage
from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.consistency import compare
from ramflow.embed.defects import defects
from ramflow.embed.descriptions import describe
from ramflow.embed.diagnosis import Diagnosis, ranked
from ramflow.embed.files import read_embeddings
from ramflow.embed.gates import defect_check, one_row_check, reference_checks
from ramflow.embed.probe import probe_all
from ramflow.errors import UserError
from ramflow.settings import EmbedSettings
from ramflow.tag_lists.mapping import map_ids
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Check, check

ALL_TEXTS_OF = 64
"""So many tags are encoded with all of their descriptions, the others with their first: seconds instead of an hour."""


@dataclass
class Examination:
    """What was found.

    ``rows`` are the fewest and the most of a tag, ``figures`` are by what the file was compared with (encoder,
    reference), ``diagnoses`` come with the gravest first.
    """

    file: Path
    names: list[str]
    rows: tuple[int, int]
    width: int
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    diagnoses: list[Diagnosis] = field(default_factory=list)

    @property
    def failures(self) -> list[Check]:
        """The checks of severity ``error`` that did not pass."""
        return [c for c in self.checks if c.severity == "error" and not c.passed]

    def add(self, against: str, checks: list[Check], figures: dict[str, Any], diagnoses: list[Diagnosis]) -> None:
        """Take in a comparison; a kind of diagnosis that stands already is not said twice."""
        self.checks += [replace(c, id=c.id.replace("reference", against)) for c in checks]
        self.figures.setdefault(against, {}).update(figures)
        known = {d.kind for d in self.diagnoses}
        self.diagnoses = ranked([*self.diagnoses, *(d for d in diagnoses if d.kind not in known)])


def examine(
    file: Path, tags: Path, settings: EmbedSettings, *, clip: str | None = None, descriptions: Path | None = None,
    reference: Path | None = None, reference_tags: Path | None = None,
) -> Examination:  # fmt: skip
    """Look at a file of embeddings with all that is given.

    Args:
        file: embeddings in any form that ``files.read_embeddings`` reads.
        tags: the tag list that they are for.
        settings: the limits.
        clip: a text encoder, to encode tags afresh: a folder, or OWNER/NAME of the hub.
        descriptions: upstream's description JSON of the tags; the template otherwise.
        reference: embeddings that are known to be right.
        reference_tags: their tag list, where it is another: tags are compared by name then.

    Raises:
        UserError: something is unreadable or does not go with the rest.
    """
    if descriptions and not clip:
        raise UserError("--descriptions goes with --clip: give the CLIP that is to encode them")
    if reference_tags and not reference:
        raise UserError("--reference-tags goes with --reference: give the embeddings of that list")
    table = read_tags(tags)
    vectors = read_embeddings(file, len(table))
    counts = vectors.mask.sum(dim=1)
    found = Examination(file, table.names, (int(counts.min()), int(counts.max())), vectors.embeddings.shape[2])
    own = defects(vectors)
    found.add("file", [defect_check(own, len(table)), one_row_check(vectors), _list_check(vectors, table)], {}, own)
    if clip:
        _against_encoder(found, vectors, table, clip, descriptions, settings)
    if reference:
        _against_reference(found, vectors, table, reference, reference_tags, settings)
    return found


def _list_check(vectors: TagEmbeddings, table: TagTable) -> Check:
    other = vectors.tag_digest not in ("", table.digest)
    known = "is for this tag list" if vectors.tag_digest else "does not say for which tag list it is"
    message = "the file was made for another tag list, or another order of it" if other else f"the file {known}"
    return check("embed.tag_list", "error", int(other), 1, message)


def _against_encoder(
    found: Examination,
    vectors: TagEmbeddings,
    table: TagTable,
    clip: str,
    descriptions: Path | None,
    settings: EmbedSettings,
) -> None:
    from ramflow.embed.encoder import TextEncoder

    texts = describe(table, settings.templates, descriptions).texts
    local = Path(clip)
    encoder = TextEncoder(local if local.exists() else hub.fetch(clip, storage.cache_directory() / "hub"))

    def encode(some: list[str]) -> Tensor:
        return encoder.encode(some, settings.batch, "encode")

    if encoder.width == found.width:
        found.add("encoder", *probe_all(vectors, found.names, texts, encode, settings), [])
    else:
        message = f"the rows are {found.width} wide, the vectors of {clip} {encoder.width}: they are of another encoder"
        found.add("encoder", [check("embed.width", "error", 1, 1, message)], {}, [])
    comparison = compare(vectors, fresh_rows(texts, encode))
    found.add("encoder", reference_checks(comparison, settings), comparison.figures(), comparison.diagnoses)


def fresh_rows(texts: list[list[str]], encode: Callable[[list[str]], Tensor]) -> TagEmbeddings:
    """A reference from the encoder: the first text of every tag, and all texts of some tags spread over the list."""
    own = [[text for text in some if text.strip()] for some in texts]
    whole = set(torch.linspace(0, len(own) - 1, ALL_TEXTS_OF).round().int().tolist())
    chosen = [some if tag in whole else some[:1] for tag, some in enumerate(own)]
    counts = torch.tensor([len(some) for some in chosen])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    rows = encode([text for some in chosen for text in some])
    embeddings = torch.zeros(*mask.shape, rows.shape[1])
    embeddings[mask] = rows
    return TagEmbeddings(embeddings, mask, "", {})


def _against_reference(
    found: Examination, vectors: TagEmbeddings, table: TagTable, path: Path, tags: Path | None, settings: EmbedSettings
) -> None:
    theirs = read_tags(tags) if tags else table
    reference = read_embeddings(path, len(theirs))
    if reference.tag_digest not in ("", theirs.digest):
        raise UserError(f"{path} is of another tag list: give its own with --reference-tags")
    if theirs.names != table.names:
        reference, unknown = _by_name(reference, table.names, theirs.names)
        message = f"{len(unknown)} of {len(table)} tags are not in the reference's list and were not compared"
        found.checks.append(
            check("embed.reference_unknown", "warning", len(unknown), len(table), message, examples=unknown)
        )
    comparison = compare(vectors, reference)
    found.add("reference", reference_checks(comparison, settings), comparison.figures(), comparison.diagnoses)


def _by_name(reference: TagEmbeddings, names: list[str], theirs: list[str]) -> tuple[TagEmbeddings, list[str]]:
    """The reference's rows in the order of ``names``, masked where it has none; and the names it lacks."""
    places = map_ids(names, theirs)
    order = torch.tensor([0 if place is None else place for place in places])
    known = torch.tensor([place is not None for place in places])
    mask = reference.mask[order] & known[:, None]
    unknown = [name for name, place in zip(names, places, strict=True) if place is None]
    return TagEmbeddings(reference.embeddings[order], mask, "", {}), unknown
