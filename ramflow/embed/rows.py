"""Rows of tags made comparable: unit rows, means of tags, and how the rows of two files agree tag by tag.

Everything goes in pieces of some tags, so that 4585 x 51 x 512 (480 MB) is never copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings

TAGS_AT_A_TIME = 256


def pieces(tags: int) -> Iterator[slice]:
    """Ranges of ids that cover ``tags`` tags."""
    for start in range(0, tags, TAGS_AT_A_TIME):
        yield slice(start, min(start + TAGS_AT_A_TIME, tags))


def usable(vectors: TagEmbeddings, tags: slice | Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows [tags, descriptions, width] of some tags, and which are usable: unmasked, finite, not zero.

    What is not usable is zero.
    """
    rows = vectors.embeddings[tags].float()
    lengths = rows.norm(dim=-1)
    good = vectors.mask[tags] & lengths.isfinite() & (lengths > 0)
    if not good.all():
        rows, lengths = rows.masked_fill(~good[..., None], 0.0), lengths.masked_fill(~good, 1.0)
    return rows / lengths[..., None], good


def tag_vectors(vectors: TagEmbeddings) -> Tensor:
    """The unit mean of every tag's usable rows: [tags, width]; zero for a tag without any."""
    means = [usable(vectors, piece)[0].sum(dim=1) for piece in pieces(len(vectors.embeddings))]
    return normalize(torch.cat(means), dim=-1)


@dataclass(frozen=True)
class Agreement:
    """How rows of a candidate agree with those of a reference, over pairs of tags.

    A figure is NaN where the reference has no rows, and 0 where the candidate has none.

    Attributes:
        cosine: [pairs] cosine of the nearest row, for the reference's row that is worst off.
        nearest: [pairs] the same for the reference's row that is best off.
        mean_cosine: [pairs] cosine of the means of the tags' rows.
        spread: [pairs] cosine of the candidate's row that is farthest from its tag's mean: 1 if all are equal.
        reference_spread: the same of the reference.
        matched: [pairs, width] unit mean of the candidate's rows that are nearest to the reference's rows.
        in_place: [pairs, descriptions] cosine of rows at the same place, or None where the numbers differ.
        offset: [pairs] the step at which the rows of a tag agree best, 0 for rows in place; None as above.
        offset_cosine: [pairs] mean cosine at that step; None as above.
    """

    cosine: Tensor
    nearest: Tensor
    mean_cosine: Tensor
    spread: Tensor
    reference_spread: Tensor
    matched: Tensor
    in_place: Tensor | None
    offset: Tensor | None
    offset_cosine: Tensor | None


def agree(candidate: TagEmbeddings, reference: TagEmbeddings, own: Tensor, others: Tensor) -> Agreement:
    """Compare candidate tags ``own`` with reference tags ``others``, ids int64 [pairs]; the widths are equal."""
    assert candidate.embeddings.shape[2] == reference.embeddings.shape[2] and len(own) == len(others) > 0
    parts = [_agree(candidate, reference, own[piece], others[piece]) for piece in pieces(len(own))]
    columns = zip(*parts, strict=True)
    return Agreement(*[torch.cat(c) if c[0] is not None else None for c in columns])  # type: ignore[arg-type]


def _agree(
    candidate: TagEmbeddings, reference: TagEmbeddings, own: Tensor, others: Tensor
) -> tuple[Tensor | None, ...]:
    rows, good = usable(candidate, own)
    wanted, known = usable(reference, others)
    cosines = torch.bmm(wanted, rows.transpose(1, 2))
    best, place = cosines.masked_fill(~good[:, None], -1.0).max(dim=2)
    matched = rows.gather(1, place[..., None].expand_as(wanted)) * known[..., None]
    mean, wanted_mean = normalize(rows.sum(1), dim=-1), normalize(wanted.sum(1), dim=-1)
    figures = [
        best.masked_fill(~known, 2.0).amin(1),
        best.masked_fill(~known, -1.0).amax(1),
        (mean * wanted_mean).sum(-1),
        (rows @ mean[..., None]).squeeze(-1).masked_fill(~good, 2.0).amin(1),
        (wanted @ wanted_mean[..., None]).squeeze(-1).masked_fill(~known, 2.0).amin(1),
    ]
    figures = [f.masked_fill(~good.any(1), 0.0).masked_fill(~known.any(1), torch.nan) for f in figures]
    in_place: tuple[Tensor | None, ...] = (None, None, None)
    if rows.shape[1] == wanted.shape[1]:
        in_place = (cosines.diagonal(dim1=1, dim2=2), *_best_offset(cosines, good & known))
    return (*figures, normalize(matched.sum(1), dim=-1), *in_place)


def _best_offset(cosines: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """The diagonal of [pairs, reference row, candidate row] with the greatest mean, at most half the rows away."""
    rows = cosines.shape[1]
    steps = sorted(range(-(rows // 2), rows // 2 + 1), key=abs)
    means = torch.stack([cosines.diagonal(offset=-step, dim1=1, dim2=2).mean(1) for step in steps], dim=1)
    means[~both.all(1), 1:] = -1.0
    best = means.max(dim=1)
    return torch.tensor(steps)[best.indices], best.values
