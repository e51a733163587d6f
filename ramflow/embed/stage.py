"""embed: every description and caption through the frozen text encoder, once, and proved to belong to its tag."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ramflow.data.audited import tag_status
from ramflow.data.dataset import Dataset
from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.caption_checks import caption_row_checks, probe_captions
from ramflow.embed.captions import embed_captions, make_plan
from ramflow.embed.consistency import compare
from ramflow.embed.descriptions import describe
from ramflow.embed.encoder import TextEncoder
from ramflow.embed.files import read_embeddings
from ramflow.embed.findings import FINDINGS_FILE, text_checks, write_findings
from ramflow.embed.gates import one_row_check, reference_checks
from ramflow.embed.probe import probe_all, row_checks, spread_check
from ramflow.embed.tag_rows import read_texts, write_description_findings, write_tags
from ramflow.settings import EmbedSettings
from ramflow.verdict import Check, Verdict, check

PIECES = "findings"
"""Folder of the findings of every chunk while the stage runs; the journal of what is done."""


def run(
    settings: EmbedSettings, *, data: Path, audit: Path, clip: Path, out: Path, descriptions: Path | None = None,
    embeddings: Path | None = None, reference: Path | None = None,
) -> Verdict:  # fmt: skip
    """Write ``tags.safetensors``, ``captions.safetensors`` (``ramflow/data/vectors.py``) and ``findings.parquet``.

    A run that was stopped is gone on with: tags are not encoded again, nor are the captions of finished chunks.

    Args:
        settings: templates, batch size and what the checks expect.
        data: the packed dataset.
        audit: its audit, which says which tags are dropped.
        clip: folder of a CLIP in transformers layout.
        out: the directory to fill.
        descriptions: a file of descriptions (``ramflow/embed/descriptions.py``), beside those of the tag table.
        embeddings: tag embeddings made elsewhere, taken in place of encoding the descriptions.
        reference: tag embeddings that are known to be right, to compare with.

    Raises:
        UserError: an input is unreadable, tags have no description, or inputs are of different tag lists.
    """
    dataset = Dataset(data)
    table = replace(tag_status(dataset, audit), descriptions=dataset.tags.descriptions)
    described = describe(table, settings.templates, descriptions)
    encoder = TextEncoder(clip)
    texts = read_texts(described, encoder)
    stored = write_tags(texts, table, encoder, settings.batch, out, embeddings)
    checks, metrics = _tag_checks(stored, table.names, described.texts, encoder, settings)
    if reference:
        comparison = compare(stored, read_embeddings(reference, len(table)))
        checks += reference_checks(comparison, settings)
        metrics |= {f"reference_{name}": value for name, value in comparison.figures().items()}
    descriptions_kept = int(stored.mask.sum())
    del stored

    plan = make_plan(dataset)
    if not (out / FINDINGS_FILE).is_file():
        (out / PIECES).mkdir(exist_ok=True)
        of_descriptions = out / PIECES / "descriptions.parquet"
        write_description_findings(texts, table, of_descriptions)
        of_captions = embed_captions(dataset, plan, encoder, settings.batch, out, out / PIECES)
        write_findings(out / FINDINGS_FILE, [of_descriptions, *of_captions])
    shutil.rmtree(out / PIECES, ignore_errors=True)
    checks += text_checks(out / FINDINGS_FILE, described, len(plan.first), encoder.limit)
    checks += [*caption_row_checks(out), *probe_captions(dataset, plan, encoder, out, settings)]
    sizes = {"tags": len(table), "descriptions": descriptions_kept, "captions": len(plan.first), "width": encoder.width}
    return Verdict("embed", checks=checks, metrics={**sizes, **metrics})


def _tag_checks(
    stored: TagEmbeddings, names: list[str], texts: list[list[str]], encoder: TextEncoder, settings: EmbedSettings
) -> tuple[list[Check], dict[str, Any]]:
    rows = stored.embeddings.flatten(0, 1)
    rows = rows if stored.mask.all() else rows[stored.mask.flatten()]

    def encode(some: list[str]) -> Tensor:
        return encoder.encode(some, settings.batch, "embed: encode tags afresh")

    probed, metrics = probe_all(stored, names, texts, encode, settings)
    other = int(stored.encoder != encoder.identity)
    message = f"the embeddings are of {'another encoder than' if other else 'the encoder of'} --clip, as they say"
    return [
        *row_checks("tags", rows),
        spread_check(rows),
        one_row_check(stored),
        *probed,
        check("embed.encoder", "warning", other, 1, message),
    ], metrics
