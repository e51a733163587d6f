"""What a file of embeddings shows on its own, without encoder or reference."""

from __future__ import annotations

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.diagnosis import Diagnosis, some
from ramflow.embed.rows import pieces, tag_vectors

UNIT_TOLERANCE = 5e-3
"""bfloat16 rows are within 4e-3 of length 1."""
MIN_SPREAD = 1e-4
SAME_VECTOR_TAGS = 5
"""So many tags with one vector are no duplicate names."""
RANDOM_TAGS = 64
"""With fewer tags than this, chance is not told from meaning."""


def defects(vectors: TagEmbeddings) -> list[Diagnosis]:
    """Rows that are zero, not finite, not unit, the same for many tags, random, or of half precision."""
    means = tag_vectors(vectors)
    found = [_faulty_rows(vectors), _constant(means), _random(means), _not_unit(vectors), half_precision(vectors)]
    return [diagnosis for diagnosis in found if diagnosis]


def _faulty_rows(vectors: TagEmbeddings) -> Diagnosis | None:
    zero, broken, tags = 0, 0, set[int]()
    for piece in pieces(len(vectors.mask)):
        rows, mask = vectors.embeddings[piece], vectors.mask[piece]
        finite = rows.isfinite().all(-1)
        zeros = mask & ~rows.any(-1)
        zero, broken = zero + int(zeros.sum()), broken + int((mask & ~finite).sum())
        tags |= {piece.start + tag for tag in (zeros | (mask & ~finite)).any(1).nonzero().flatten().tolist()}
    if not tags:
        return None
    ids = sorted(tags)
    return Diagnosis(
        "faulty_rows",
        f"rows of {len(ids)} tags were never filled, or broke: they train without meaning; make them again",
        f"{zero} rows of zeros, {broken} with NaN or infinity; tags {some(ids)}",
        tuple(ids),
    )


def _constant(means: Tensor) -> Diagnosis | None:
    known = means.any(1)
    if known.sum() < 2:
        return None
    ids = known.nonzero().flatten()
    spread = 1.0 - float(means[known].double().mean(dim=0).norm()) ** 2
    if spread < MIN_SPREAD:
        evidence = f"1 - mean cosine of different tags is {spread:.2g}; real ones have 0.1 or more"
        message = "all tags have nearly the same vector: no tag can be told from another; make the file again"
        return Diagnosis("constant", message, evidence, tuple(ids.tolist()))
    _, group, sizes = torch.unique(means[known].mul(1e4).round(), dim=0, return_inverse=True, return_counts=True)
    same = ids[sizes[group] >= SAME_VECTOR_TAGS].tolist()
    if not same:
        return None
    return Diagnosis(
        "constant",
        f"{len(same)} tags share their vector with other tags: they cannot be told apart; make their rows again",
        f"the largest group of equal tags has {int(sizes.max())}; tags {some(same)}",
        tuple(same),
    )


def _random(means: Tensor) -> Diagnosis | None:
    """Random directions: pairs have cosines of mean 0 and deviation 1 / sqrt(width), which texts never have."""
    known = means[means.any(1)]
    tags, width = known.shape
    if tags < RANDOM_TAGS:
        return None
    cosines = (known @ known.T)[*torch.triu_indices(tags, tags, 1).unbind()]
    mean, deviation = float(cosines.mean()), float(cosines.std())
    if abs(mean) > 0.02 or abs(deviation * width**0.5 - 1) > 0.1:
        return None
    return Diagnosis(
        "random",
        "the vectors are random numbers, not of any text: was the table ever filled from a file?",
        f"cosines of different tags have mean {mean:.3f} and deviation {deviation:.3f}; random ones of width {width} "
        f"have 0 and {width**-0.5:.3f}, texts a mean of 0.5 or more",
        tuple(range(tags)),
    )


def _not_unit(vectors: TagEmbeddings) -> Diagnosis | None:
    lengths = vectors.embeddings.norm(dim=-1, dtype=torch.float32)
    known = vectors.mask & lengths.isfinite() & (lengths > 0)
    other = known & ((lengths - 1).abs() > UNIT_TOLERANCE)
    if not other.any():
        return None
    tags = other.any(1).nonzero().flatten().tolist()
    low, high = float(lengths[other].min()), float(lengths[other].max())
    return Diagnosis(
        "not_unit",
        "rows are not of length 1: the re-weighting takes cosines, so divide each row by its length",
        f"{int(other.sum())} of {int(known.sum())} rows, of {len(tags)} tags, have lengths {low:.4g} to {high:.4g}; "
        f"tags {some(tags)}",
        tuple(tags),
    )


def half_precision(vectors: TagEmbeddings) -> Diagnosis | None:
    """Every number of the file is one of float16, or of bfloat16: it went through half precision."""
    for dtype, bound in ((torch.bfloat16, "1e-5"), (torch.float16, "1e-7")):
        parts = (vectors.embeddings[piece].nan_to_num() for piece in pieces(len(vectors.mask)))
        exact = all(bool((rows.to(dtype).float() == rows).all()) for rows in parts)
        if exact and vectors.embeddings.any():
            return Diagnosis(
                "half_precision",
                f"the vectors were rounded to {str(dtype).removeprefix('torch.')}: harmless, cosines keep to {bound}",
                f"all {vectors.embeddings.numel()} numbers are exactly representable in it",
                harmless=True,
            )
    return None
