"""Which rows of an embedding file the checkpoint holds, tag by tag: the same, moved, or others (F07)."""

from __future__ import annotations

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding
from ramflow.doctor.recipe import PUBLIC_DESCRIPTIONS
from ramflow.embed.consistency import compare

SAME = 1e-3
"""Largest difference of an entry that half precision makes of unit rows."""
MOST = 0.9


def of_full_list(case: Case) -> bool:
    """The file has as many tags as the list that the run's was made from."""
    return bool(case.tags and case.tags.derived and case.embeddings and case.embeddings.tags == case.tags.full_size)


def compare_with_checkpoint(case: Case) -> Answer:
    """Say which tag's rows of the file each tag of a RAM++ checkpoint holds."""
    if case.checkpoint is None or case.embeddings is None or case.embeddings.tags is None:
        return Answer()
    held = case.checkpoint.read("label_embed")
    if held is None or case.checkpoint.family != "ram++" or len(held) % case.checkpoint.per_tag:
        return Answer()
    ours = case.embeddings.first_rows().float()
    if held.shape[1] != ours.shape[1]:
        return _seen(f"the checkpoint's are {held.shape[1]} wide: from another encoder")
    source = _nearest(held[:: case.checkpoint.per_tag].float(), ours)
    if float((source >= 0).float().mean()) < MOST:
        return _others(held, case, int((source >= 0).sum()))
    return _places(source, len(ours), case)


def _places(source: Tensor, tags: int, case: Case) -> Answer:
    """``source[i]`` is the tag of the file, of ``tags`` in all, whose rows tag i of the checkpoint holds; -1: none."""
    here = torch.arange(len(source))
    list_moved = case.tags.moved if case.tags and of_full_list(case) else []
    if case.tags and list_moved and _share_equal(source, case.tags.to_full) >= MOST:
        return _seen("the checkpoint's rows are this file's, moved as the tag list was")
    if bool((source == here).all()):
        if case.tags and list_moved:
            return _moved(list_moved[0], f"the checkpoint's {len(source):,} tags hold the first rows of the file's "
                                         f"{tags:,}, while {case.tags.path.name} was re-indexed")  # fmt: skip
        share = f", the first {len(source):,} of {tags:,}" if len(source) < tags else ""
        return _seen(f"the checkpoint holds these rows, tag by tag{share}")
    first = int((source != here).nonzero()[0, 0])
    if case.tags is None and len(source) < tags and bool((source[1:] > source[:-1]).all()):
        return _seen(f"the checkpoint holds these rows with {tags - len(source)} tags left out, from tag {first} on")
    return _moved(first, f"tag {first} of the checkpoint has the rows of tag {int(source[first])} of the file")


def _nearest(theirs: Tensor, ours: Tensor) -> Tensor:
    """For each row the row of ``ours`` that is the same within half precision, best at its own place; -1: none."""
    here = min(len(theirs), len(ours))
    best = torch.cat([torch.cdist(part, ours).argmin(dim=1) for part in theirs.split(512)])
    same = (theirs - ours[best]).abs().amax(dim=1) <= SAME
    best[~same] = -1
    in_place = (theirs[:here] - ours[:here]).abs().amax(dim=1) <= SAME
    best[:here] = torch.where(in_place, torch.arange(here), best[:here])
    return best


def _share_equal(source: Tensor, to_full: list[int | None]) -> float:
    if len(source) != len(to_full):
        return 0.0
    wanted = torch.tensor([-1 if there is None else there for there in to_full])
    return float((source == wanted)[wanted >= 0].float().mean())


def _others(held: Tensor, case: Case, known: int) -> Answer:
    """Rows that are not the file's: what `ramflow embeddings check` makes of them."""
    assert case.embeddings is not None and case.checkpoint is not None
    reference = _as_tags(case.embeddings.rows, case.embeddings.per_tag or PUBLIC_DESCRIPTIONS)
    comparison = compare(_as_tags(held, case.checkpoint.per_tag), reference)
    evidence = [f"{known:,} of {comparison.tags:,} tags of the checkpoint have their first row in the file"]
    evidence += [f"{diagnosis.message} ({diagnosis.evidence})" for diagnosis in comparison.diagnoses]
    return Answer([Finding(
        "embeddings.differ", "cause", "likely",
        "The checkpoint was trained with other embeddings than the file's", evidence,
        "Queries made of one set of descriptions are scored with another: scores fall without an error.",
        "Use the embeddings that the checkpoint holds; `ramflow embeddings check` compares the two in full.",
    )])  # fmt: skip


def _as_tags(rows: Tensor, per_tag: int) -> TagEmbeddings:
    embeddings = rows.float().view(-1, per_tag, rows.shape[1])
    return TagEmbeddings(embeddings, embeddings.any(dim=2), "", {})


def _seen(text: str) -> Answer:
    return Answer(seen=[("embeddings", text)])


def _moved(first: int, evidence: str) -> Answer:
    return Answer([Finding(
        "embeddings.moved", "cause", "certain",
        f"From tag {first} on the rows of the embeddings are another tag's", [evidence],
        "The public code takes rows by their place: with list and embeddings in different orders, every later tag "
        "is asked for with another tag's descriptions.",
        "Build the embeddings for the list that is trained with; `ramflow embed` writes the list's digest into them.",
        ("losses.stall",),
    )])  # fmt: skip
