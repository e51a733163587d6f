"""Diagnoses of tag embeddings: rows against tags, sound rows, what the checkpoint was trained with (F06, F07)."""

from __future__ import annotations

import torch

from ramflow.doctor.case import Case
from ramflow.doctor.embedding_file import Embeddings
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.held_embeddings import compare_with_checkpoint, of_full_list
from ramflow.doctor.recipe import PUBLIC_DESCRIPTIONS

NOT_UNIT = 0.01


def diagnose_embeddings(case: Case) -> Answer:
    """Compare rows with tags, and with the rows that the checkpoint holds."""
    answer = Answer()
    if case.embeddings is None:
        return answer
    file = case.embeddings
    answer.seen.append(("embeddings", f"{file.path.name}: {len(file.rows):,} rows of {file.rows.shape[1]}"
                        + (f", {file.tags:,} tags" if file.tags else "")))  # fmt: skip
    tags = len(case.tags.names) if case.tags else None
    if case.checkpoint and tags is None and (file.tags is None or len(file.rows) == case.checkpoint.tags):
        tags = case.checkpoint.tags
    found = [_count(file, tags) if tags and not of_full_list(case) else None, _sound(file)]
    answer.findings += [finding for finding in found if finding]
    if not answer.findings:
        answer.untold.append(
            Untold("is row i of the embeddings the tag i of the list, as the text encoder sees it",
                   "`ramflow embeddings check` with the text encoder")
        )  # fmt: skip
        answer.add(compare_with_checkpoint(case))
    return answer


def _count(file: Embeddings, tags: int) -> Finding | None:
    rows = len(file.rows)
    if rows == tags and not file.per_tag:
        return Finding(
            "embeddings.averaged", "cause", "certain", "The embeddings have one row a tag: re-weighting is off",
            [f"{rows:,} rows for {tags:,} tags, where {PUBLIC_DESCRIPTIONS} a tag are expected"],
            "With one row there is nothing to weigh: RAM++ becomes RAM with a mean description. The public helper "
            "averaged them until pull request 187 (2024-06-12), and training runs without an error.",
            f"Build them again with {PUBLIC_DESCRIPTIONS} rows a tag (`ramflow embed`).",
        )  # fmt: skip
    if not rows % tags:
        return None
    return Finding(
        "embeddings.uneven", "cause", "certain", "The embeddings have no whole number of rows a tag",
        [f"{rows:,} rows for {tags:,} tags are {rows / tags:.3f} a tag"],
        "The public code rounds down: from the first tag with another number of descriptions on, every tag has rows "
        "of its neighbour.",
        "Build them again: `ramflow embed` keeps uneven numbers of descriptions with a mask.",
        ("losses.stall",),
    )  # fmt: skip


def _sound(file: Embeddings) -> Finding | None:
    lengths = torch.cat([part.float().norm(dim=1) for part in file.rows.split(1 << 16)])
    bad = int((~lengths.isfinite()).sum())
    zero = int((lengths == 0).sum()) if not file.per_tag else 0  # ramflow masks rows that are not there
    if bad or zero:
        return Finding(
            "embeddings.empty", "cause", "certain", "Rows of the embeddings are empty or no numbers",
            [f"{zero:,} of {len(lengths):,} rows are zero, {bad:,} hold NaN or infinity"],
            "A query of zeros asks nothing: all such tags get one and the same score.",
            "Build the embeddings again; `ramflow embeddings check` looks at every row.",
        )  # fmt: skip
    off = (lengths[lengths > 0] - 1).abs().max()
    if off <= NOT_UNIT:
        return None
    return Finding(
        "embeddings.not_unit", "note", "certain", "The embeddings are not of length 1",
        [f"lengths from {lengths.min():.3g} to {lengths.max():.3g}"],
        "The re-weighting takes products as cosines: longer rows sharpen it, and shift what queries the head sees.",
        "Divide every row by its length.",
    )  # fmt: skip
