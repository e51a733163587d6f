"""A file of embeddings against a reference: figures, and what is wrong where they are low (F04, F06, F07)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.alignment import Alignment, align
from ramflow.embed.content import content
from ramflow.embed.defects import defects
from ramflow.embed.diagnosis import Diagnosis, ranked
from ramflow.embed.foreign import align_foreign
from ramflow.embed.moved import moved_tags
from ramflow.embed.rows import agree, tag_vectors

NEIGHBOURS = 10
RELATED = 0.2
"""Correlation of similarity matrices above which two encoders speak of the same tags; by chance it is within 0.05."""


@dataclass(frozen=True)
class Comparison:
    """Tags of a candidate against the tags of the same ids in a reference.

    Attributes:
        tags: number of tags of the candidate.
        reference_tags: number of tags of the reference.
        cosines: float32 [tags that both have]: per tag, the cosine of the nearest row for the reference's row that is
            worst off; NaN where the reference has no rows, 0 where the candidate has none. None where the widths
            differ, as of another encoder.
        strangers: (tag, nearest tag of the reference) of tags that are nearer to another tag; None as above.
        correlation: of the two matrices of similarities of tags (means of rows, centred), over their upper triangles.
        neighbours: mean share of a tag's 10 nearest tags that are the same in both.
        diagnoses: what is wrong, the gravest first; none for files that agree.
    """

    tags: int
    reference_tags: int
    cosines: Tensor | None
    strangers: list[tuple[int, int]] | None
    correlation: float
    neighbours: float
    diagnoses: list[Diagnosis]

    @property
    def shared(self) -> int:
        """Number of tags that both have."""
        return min(self.tags, self.reference_tags)

    @property
    def identity(self) -> float | None:
        """Share of the shared tags whose rows are nearest to the reference's rows of that very tag."""
        return None if self.strangers is None else 1 - len(self.strangers) / self.shared

    def figures(self) -> dict[str, Any]:
        """The figures for a verdict or for JSON, rounded."""
        figures: dict[str, float | None] = {
            "cosine": None if self.cosines is None else float(self.cosines.nanmean()),
            "min_cosine": None if self.cosines is None else float(self.cosines.nan_to_num(2.0).min()),
            "identity": self.identity,
            "correlation": self.correlation,
            "neighbours": self.neighbours,
        }
        return {name: value if value is None else round(value, 6) for name, value in figures.items()}


def compare(candidate: TagEmbeddings, reference: TagEmbeddings) -> Comparison:
    """Compare tags by their ids, and diagnose what differs.

    Args:
        candidate: the embeddings in question.
        reference: embeddings of the same tags that are known to be right. Tags of other number or order, another
            encoder, and a reference with fewer texts a tag (only one, say) are all compared as far as that goes.
    """
    shared = min(len(candidate.mask), len(reference.mask))
    same_width = candidate.embeddings.shape[2] == reference.embeddings.shape[2]
    ids = torch.arange(shared)
    in_place = agree(candidate, reference, ids, ids) if same_width else None
    theirs = tag_vectors(reference)[:shared]
    fewer = in_place is not None and int(reference.mask.sum()) < int(candidate.mask.sum())
    ours = in_place.matched if in_place is not None and fewer else tag_vectors(candidate)[:shared]
    correlation, neighbours = _structure(ours, theirs)
    alignment = align(candidate, reference) if same_width else None
    diagnoses = _diagnose(candidate, reference, alignment, correlation)
    return Comparison(
        len(candidate.mask), len(reference.mask), in_place.cosine if in_place else None,
        alignment.strangers if alignment else None,
        correlation, neighbours, ranked(diagnoses),
    )  # fmt: skip


def _structure(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Correlation and overlap of neighbours of two similarity matrices, over the tags that both have rows of."""
    known = ours.any(1) & theirs.any(1)
    tags = int(known.sum())
    if tags < 3:
        return float(len(known) < 3), float(len(known) < 3)
    first, second = (_similarities(vectors[known]) for vectors in (ours, theirs))
    count = min(NEIGHBOURS, tags - 2)
    near = [matrix.fill_diagonal_(-2.0).topk(count, dim=1).indices for matrix in (first, second)]
    overlap = (near[0][:, :, None] == near[1][:, None]).any(2).float().mean()
    upper = torch.triu_indices(tags, tags, 1).unbind()
    pairs = torch.stack([first[upper], second[upper]])
    correlation = float(torch.corrcoef(pairs.double())[0, 1])
    return correlation if correlation == correlation else 0.0, float(overlap)


def _similarities(vectors: Tensor) -> Tensor:
    centred = normalize(vectors - vectors.mean(dim=0), dim=-1)
    return centred @ centred.T


def _diagnose(
    candidate: TagEmbeddings, reference: TagEmbeddings, alignment: Alignment | None, correlation: float
) -> list[Diagnosis]:
    found = _own(candidate, reference)
    blind = {tag for d in found if d.kind in ("faulty_rows", "constant") for tag in d.tags}
    aligned = alignment is not None and alignment.found
    if len(blind) == len(candidate.mask) or (not aligned and any(d.kind == "random" for d in found)):
        return found
    if alignment is None or not alignment.found:
        return [*found, *_foreign(candidate, reference, correlation)]
    target = [-1 if tag in blind else other for tag, other in enumerate(alignment.target.tolist())]
    found += moved_tags(target, len(reference.mask))
    own = torch.tensor([tag for tag, other in enumerate(target) if other >= 0])
    if len(own):
        found += content(agree(candidate, reference, own, torch.tensor(target)[own]), candidate, own)
    return found


def _own(candidate: TagEmbeddings, reference: TagEmbeddings) -> list[Diagnosis]:
    """The candidate's own defects, less those that the reference has as well: there they are what is meant."""
    theirs = {d.kind: set(d.tags) for d in defects(reference)}
    return [d for d in defects(candidate) if d.kind not in theirs or not set(d.tags) <= theirs[d.kind]]


def _foreign(candidate: TagEmbeddings, reference: TagEmbeddings, correlation: float) -> list[Diagnosis]:
    """Vectors that have nothing in common: of another encoder, with the tags in place or moved, or unrelated."""
    alignment = align_foreign(candidate, reference)
    evidence = f"the matrices of tag similarities correlate by {correlation:.3f}"
    if alignment is None and correlation < RELATED:
        return [Diagnosis(
            "unrelated",
            "neither the vectors nor the similarities of the tags agree: rows of another encoder whose tags are in "
            "another order, of another tag list, or of no text at all; make the file again",
            f"no tag is nearest to itself, and {evidence}",
        )]  # fmt: skip
    moved = moved_tags(alignment.target.tolist(), len(reference.mask)) if alignment else []
    other_width = candidate.embeddings.shape[2] != reference.embeddings.shape[2]
    what = "the widths differ" if other_width else "the vectors of a tag have nothing in common"
    if alignment:
        evidence += f"; {int((alignment.target >= 0).sum())} tags are found by a linear map of one space to the other"
    return [*moved, Diagnosis(
        "another_encoder",
        "another text encoder: tags and captions must come from the CLIP of training",
        f"{what}; {evidence}",
        harmless=other_width,
    )]  # fmt: skip
