"""Diagnoses of annotations against the tag list: ids outside it, ids of another list, tags without images."""

from __future__ import annotations

import numpy as np

from ramflow.doctor.annotation_files import Annotations, Hits
from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.recipe import PUBLIC_TAGS
from ramflow.doctor.tag_ids import TagIds

MIN_TRIES = 200
"""(tag, image) pairs that captions must have been read for, before anything is said of them."""
TWICE = 2.0
"""Times as often as by chance, or as under another reading, that captions must name their tags."""
OLD_IDS_MEAN = (
    "The ids are line numbers of another list than the one that the model was trained with: every such label trains "
    "the wrong tag, without an error."
)


def diagnose_annotations(case: Case) -> Answer:
    """Compare the ids in use with the list that they should index."""
    answer = Answer()
    if case.annotations is None:
        return answer
    annotations = case.annotations
    size = case.tag_count
    highest = len(annotations.uses) - 1
    answer.seen.append(("annotations", f"{annotations.images:,} images, {annotations.captions:,} captions, "
                        f"{annotations.tags_an_image:.1f} tags an image, ids up to {highest:,}, "
                        f"{annotations.untagged:,} images without a tag"))  # fmt: skip
    outside = _outside(annotations, size) if size else None
    moved = _old_ids(annotations.hits, case.tags) if annotations.hits and case.tags else None
    answer.findings += [finding for finding in (outside, moved) if finding]
    if annotations.hits:
        answer.seen.append(("annotations", _hit_line(annotations.hits)))
        if int(annotations.hits.tries.sum()) < MIN_TRIES:
            answer.untold.append(Untold("do captions speak of the tags that the ids mean: too few were read",
                                        f"more records in --annotations ({MIN_TRIES} tags at least)"))  # fmt: skip
        elif not moved and (foreign := _foreign(annotations.hits)):
            answer.findings.append(foreign)
    if (unused := _unused(annotations, size or PUBLIC_TAGS)) and size:
        answer.findings.append(unused)
    return answer


def _outside(annotations: Annotations, size: int) -> Finding | None:
    beyond = annotations.uses[size:]
    uses, ids = int(beyond.sum()) + annotations.beyond + annotations.negative, int((beyond > 0).sum())
    if not uses:
        return None
    return Finding(
        "annotations.outside", "cause", "certain", "The annotations have ids outside the tag list",
        [f"{uses:,} labels with ids outside 0 to {size - 1:,} ({ids:,} different ids of {size:,} and more, the highest "
         f"{len(annotations.uses) - 1:,})"],
        OLD_IDS_MEAN + " The highest ids would crash the public code; where it ran, they were removed or clipped "
                       "somewhere.",
        "`ramflow tags` remaps the annotations by name; or train with the list that the annotations were made for.",
        ("losses.stall",),
    )  # fmt: skip


def _old_ids(hits: Hits, tags: TagIds) -> Finding | None:
    """Where the two lists give an id different names: which of them do the captions speak of?"""
    if not tags.derived or not tags.moved:
        return None
    names = tags.by_full_id()
    differ = np.array([i for i in range(len(hits.tries)) if _name(tags.names, i) != _name(names, i)], dtype=np.int64)
    all_counts = (hits.tries, hits.own, hits.full, hits.control)
    tries, own, full, control = (int(counts[differ].sum()) for counts in all_counts)
    if tries < MIN_TRIES or full <= TWICE * max(own, control):
        return None
    return Finding(
        "annotations.old_ids", "cause", "certain", f"The annotations still have the ids of {tags.full}",
        [f"of {tries:,} labels whose id means another tag in each list, the caption has the name that "
         f"{tags.full} gives in {full / tries:.0%}, the name that {tags.path.name} gives in {own / tries:.0%} (an "
         f"unrelated name: {control / tries:.0%})",
         f"from id {tags.moved[0]} on"],
        OLD_IDS_MEAN,
        "Remap the annotations by name with `ramflow tags`, or train with the full list. This run learnt shifted "
        "names: its scores for tag i are those of another tag.",
        ("losses.stall",),
    )  # fmt: skip


def _name(names: list[str] | list[str | None], tag: int) -> str | None:
    return names[tag] if tag < len(names) else None


def _foreign(hits: Hits) -> Finding | None:
    tries, own, control = (int(counts.sum()) for counts in (hits.tries, hits.own, hits.control))
    if own > TWICE * max(control, 1):
        return None
    return Finding(
        "annotations.foreign", "cause", "likely", "The captions do not speak of the tags that the ids mean",
        [f"of {tries:,} labels, the caption has the tag's name in {own / tries:.1%}, an unrelated name in "
         f"{control / tries:.1%}"],
        OLD_IDS_MEAN,
        "Find the tag list that these annotations were made for; captions in another language than the list's read "
        "the same.",
    )  # fmt: skip


def _hit_line(hits: Hits) -> str:
    tries, own, control = (int(counts.sum()) for counts in (hits.tries, hits.own, hits.control))
    return (f"a caption has the name of the image's tag in {own / max(tries, 1):.0%} of {tries:,} labels read (an "
            f"unrelated name: {control / max(tries, 1):.0%})")  # fmt: skip


def _unused(annotations: Annotations, size: int) -> Finding | None:
    used = int((annotations.uses[:size] > 0).sum())
    if used == size:
        return None
    unused = [i for i in range(size) if i >= len(annotations.uses) or not annotations.uses[i]]
    return Finding(
        "tags.never_used", "note", "certain", f"{len(unused)} of {size:,} tags have no image",
        ["ids " + ", ".join(map(str, unused[:10])) + (", ..." if len(unused) > 10 else "")],
        "Such a tag only ever gets negative gradient, and is still scored: a 0 for each in a mean over tags.",
        "Keep their ids, and leave them out of the loss and of the score (ramflow's audit marks them missing). "
        "Dropping them from the list would shift all later ids.",
    )  # fmt: skip
