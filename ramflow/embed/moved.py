"""What became of the order of the tags, read off an alignment: dropped, shifted, permuted, cut off."""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby

from ramflow.embed.diagnosis import Diagnosis, some

MAKE_AGAIN = "training would learn every such tag as another: make the file again for this tag list"


def moved_tags(target: list[int], reference_tags: int) -> list[Diagnosis]:
    """Diagnose ``target``: the reference's tag at every candidate tag, -1 where it is not known."""
    moved = [tag for tag, other in enumerate(target) if other not in (-1, tag)]
    if not moved:
        return _other_length(target, reference_tags)
    chain = _longest_rising(target)
    if len(chain.intersection(moved)) > len(moved) / 2 or _turned(target, moved, reference_tags):
        return [_in_order(target, moved, sorted(chain), reference_tags)]
    return [_permuted(target, moved)]


def _turned(target: list[int], moved: list[int], reference_tags: int) -> bool:
    """All rows are off by one step, those at one end put at the other."""
    steps = {(target[tag] - tag) % reference_tags for tag in moved}
    return len(target) == reference_tags and len(steps) == 1 and len(moved) > len(target) / 2


def _other_length(target: list[int], reference_tags: int) -> list[Diagnosis]:
    surplus = len(target) - reference_tags
    if not surplus:
        return []
    evidence = f"{len(target)} tags here, {reference_tags} in the reference; the ids that both have agree"
    if surplus < 0:
        gone = tuple(range(len(target), reference_tags))
        message = f"the last {-surplus} tags of the reference are missing: was the file cut off?"
        return [Diagnosis("missing_tags", message, evidence, gone)]
    message = f"the last {surplus} tags are not in the reference: compare with the reference of the same tag list"
    return [Diagnosis("extra_tags", message, evidence, tuple(range(reference_tags, len(target))))]


def _in_order(target: list[int], moved: list[int], chain: list[int], reference_tags: int) -> Diagnosis:
    """Rows in the reference's order, off by a step that changes once (shifted) or several times (reindexed)."""
    steps = [(step, len(list(run))) for step, run in groupby(target[tag] - tag for tag in moved)]
    size, _ = max(steps, key=lambda step: step[1])
    evidence = f"{len(moved)} of {len(target)} tags have another tag's rows; {_steps(steps)}"
    turned = _turned(target, moved, reference_tags)
    together = [tag for tag in chain if target[tag] != tag]
    if turned or len({target[tag] - tag for tag in together}) == 1:
        around = len({target[tag] - tag for tag in moved}) > 1
        where = "around the end of the list" if turned and around else f"from tag {together[0]} to tag {together[-1]}"
        message = f"shifted by {size:+d} {where}: row i is that of tag i{size:+d}; {MAKE_AGAIN}"
        return Diagnosis("shifted", message, evidence, tuple(moved))
    gone, added = _gaps(target, chain, reference_tags)
    happened = [
        f"{len(gone)} tags of the reference were dropped, later rows moved up (first dropped: {some(gone)})"
        * bool(gone),
        f"{len(added)} tags were put in, later rows moved down (first put in: {some(added)})" * bool(added),
    ]
    message = (
        f"{' and '.join(filter(None, happened)) or 'rows moved'}; ids no longer mean what annotations say: "
        "keep the ids, mark tags as missing instead"
    )
    return Diagnosis("reindexed", message, evidence, tuple(gone))


def _gaps(target: list[int], chain: list[int], reference_tags: int) -> tuple[list[int], list[int]]:
    """Reference ids that the chain steps over, and candidate ids that stand between rows that follow each other."""
    gone, added = list[int](), list[int]()
    last_tag, last = -1, -1
    for tag, other in [*((tag, target[tag]) for tag in chain), (len(target), reference_tags)]:
        both = min(tag - last_tag, other - last) - 1
        gone += range(last + 1 + both, other)
        added += range(last_tag + 1 + both, tag)
        last_tag, last = tag, other
    return gone, added


def _steps(steps: list[tuple[int, int]]) -> str:
    first = ", ".join(f"{step:+d} for {count} tags" for step, count in steps[:3])
    more = f", ... up to {max((s for s, _ in steps), key=abs):+d}" if len(steps) > 3 else ""
    return f"steps {first}{more}"


def _permuted(target: list[int], moved: list[int]) -> Diagnosis:
    pairs = ", ".join(f"tag {tag} has the rows of tag {target[tag]}" for tag in moved[:3])
    return Diagnosis(
        "permuted",
        f"{len(moved)} tags have the rows of another tag, in no order; {MAKE_AGAIN}",
        f"{len(moved)} of {len(target)} tags: {pairs}{', ...' if len(moved) > 3 else ''}",
        tuple(moved),
    )


def _longest_rising(target: list[int]) -> set[int]:
    """Positions of a longest strictly rising subsequence, -1 left out."""
    tails, places, before = list[int](), list[int](), dict[int, int]()
    for tag, value in enumerate(target):
        if value < 0:
            continue
        at = bisect_left(tails, value)
        before[tag] = places[at - 1] if at else -1
        tails[at : at + 1], places[at : at + 1] = [value], [tag]
    chain, tag = set[int](), places[-1] if places else -1
    while tag >= 0:
        chain.add(tag)
        tag = before[tag]
    return chain
