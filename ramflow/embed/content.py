"""What became of the texts, told from rows whose tags are known: averaged, other texts, shifted within tags."""

from __future__ import annotations

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.diagnosis import Diagnosis, some
from ramflow.embed.rows import Agreement

SAME = 0.999
"""Least cosine of vectors of one text by one encoder; in bfloat16 throughout they keep 0.99998 (docs/embeddings.md)."""
AVERAGED = 0.999
EQUAL = 1 - 1e-5
"""Cosine of rows with their mean above which they are one row, repeated."""
MOST = 0.5


def content(agreement: Agreement, candidate: TagEmbeddings, own: Tensor) -> list[Diagnosis]:
    """Diagnose pairs of tags that belong together; ``own`` int64 [pairs] are the candidate's ids."""
    known = agreement.cosine.isfinite()
    if not known.any():
        return []
    one = known & (agreement.spread >= EQUAL)
    several = agreement.reference_spread < EQUAL
    tested = known & several
    other = known & (agreement.cosine < SAME)
    found: list[Diagnosis] = []
    averaged = one & tested & (agreement.mean_cosine >= AVERAGED) & other
    if averaged.sum() > MOST * tested.sum():
        found.append(_averaged(agreement, averaged, tested, candidate, own))
        other = other & ~averaged & ~one
    elif (one & tested).sum() > MOST * tested.sum():
        found.append(_one_row(agreement, one & tested, tested, own))
        other = other & ~(agreement.nearest >= SAME)
    shifted = _rows_shifted(agreement, other, own)
    if shifted:
        found.append(shifted)
    elif other.any():
        found.append(_other_texts(agreement, other, known, several, own))
    return found


def _averaged(
    agreement: Agreement, averaged: Tensor, tested: Tensor, candidate: TagEmbeddings, own: Tensor
) -> Diagnosis:
    rows = candidate.mask.shape[1]
    form = "one row a tag" if rows == 1 else f"the {rows} rows of a tag are equal"
    return Diagnosis(
        "averaged",
        f"{form}, the mean of its descriptions: the re-weighting has nothing to choose from; encode again "
        "with one row a description",
        f"{int(averaged.sum())} of {int(tested.sum())} tags: cosine with the mean of the reference's rows "
        f"{_median(agreement.mean_cosine[averaged])}, with the row worst off {_median(agreement.cosine[averaged])}",
        tuple(own[averaged].tolist()),
    )


def _one_row(agreement: Agreement, one: Tensor, tested: Tensor, own: Tensor) -> Diagnosis:
    return Diagnosis(
        "one_row",
        "one row a tag, not the mean of the descriptions: the re-weighting has nothing to choose from; encode again "
        "with one row a description",
        f"{int(one.sum())} of {int(tested.sum())} tags: cosine with the mean of the reference's rows "
        f"{_median(agreement.mean_cosine[one])}, with the nearest of them {_median(agreement.nearest[one])}",
        tuple(own[one].tolist()),
    )


def _rows_shifted(agreement: Agreement, other: Tensor, own: Tensor) -> Diagnosis | None:
    """Rows off by less than a tag: some tag before has a description too few or too many (F06)."""
    if agreement.offset is None or agreement.offset_cosine is None:
        return None
    moved = other & (agreement.offset != 0) & (agreement.offset_cosine >= 0.999)
    if not other.any() or moved.sum() <= MOST * other.sum():
        return None
    assert agreement.in_place is not None
    moved = (agreement.offset != 0) & (agreement.offset_cosine >= 0.999)
    moved &= agreement.in_place.mean(1) < agreement.offset_cosine - 1e-3
    tags = own[moved].tolist()
    steps = torch.unique(agreement.offset[moved]).tolist()
    return Diagnosis(
        "rows_shifted",
        f"rows are shifted within the tags from tag {tags[0]} to tag {tags[-1]}: a tag before has a description too "
        "many or too few, so rows of the next tag follow; make the file again with a mask (`ramflow embed`)",
        f"rows of {len(tags)} tags agree at a step of {some(steps)} rows, not in place",
        tuple(tags),
    )


def _other_texts(agreement: Agreement, other: Tensor, known: Tensor, several: Tensor, own: Tensor) -> Diagnosis:
    tags = own[other].tolist()
    evidence = (
        f"{len(tags)} of {int(known.sum())} tags have a text whose nearest row has a cosine under {SAME} (median "
        f"{_median(agreement.cosine[other])}; of the means {_median(agreement.mean_cosine[other])}); tags {some(tags)}"
    )
    if agreement.in_place is not None:
        columns = agreement.in_place[other].median(dim=0).values
        agreeing = int((columns >= SAME).sum())
        changed = (columns < SAME).nonzero().flatten().tolist()
        if agreeing and changed:
            evidence += f"; {agreeing} places of a tag agree, others do not: {some(changed)}"
    if not several.any() and bool((agreement.spread[other] >= EQUAL).all()):
        evidence += "; one row a tag: compare with all descriptions to see whether it is their mean"
    return Diagnosis(
        "other_texts",
        "another template or other descriptions: the rows are at their tags but of other texts; "
        "encode the texts that training is meant to use, and use one file for all stages",
        evidence,
        tuple(tags),
    )


def _median(values: Tensor) -> str:
    return f"{float(values.median()):.4f}"
