"""Diagnoses of the tag list and of the numbers of tags everywhere: one list, one number (F06, F08, F10)."""

from __future__ import annotations

from collections import Counter

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.recipe import PUBLIC_TAGS
from ramflow.doctor.tag_ids import TagIds

SOME_FEWER = 0.9
"""A model with at least this share of the public number of tags, and not all, has lost some of them."""
SHOWN = 5
REINDEXED = (
    "A tag's id is its line number: after a line is taken out every later tag has a new id, and whatever keeps the "
    "old ids (annotations, embeddings, thresholds, a released checkpoint) speaks of other tags from there on."
)
KEEP_IDS = (
    "Put the full list back and mark tags without images as missing instead; `ramflow tags` drops tags and keeps "
    "ids, and remaps annotations on request."
)


def diagnose_tags(case: Case) -> Answer:
    """Compare the tag list with the full one, and the numbers of tags in all files with one another."""
    answer = Answer()
    counts = _counts(case)
    if counts:
        answer.seen.append(("tags", ", ".join(f"{count:,} in {where}" for where, count in counts.items())))
    if case.tags:
        _look_at_list(case.tags, answer)
    else:
        fewer = {where: n for where, n in counts.items() if SOME_FEWER * PUBLIC_TAGS <= n < PUBLIC_TAGS}
        if fewer:
            answer.findings.append(_fewer(fewer))
    if len(set(counts.values())) > 1:
        answer.findings.append(_disagree(counts))
    return answer


def _counts(case: Case) -> dict[str, int]:
    """Number of tags by the file that says it; embeddings of the full list, beside a checkpoint, are a reference."""
    counts: dict[str, int] = {}
    if case.tags:
        counts[case.tags.path.name] = len(case.tags.names)
    if case.checkpoint and case.checkpoint.tags and case.checkpoint.label_rows:
        one_a_tag = case.tags is not None and case.checkpoint.label_rows == len(case.tags.names)
        counts[case.checkpoint.path.name] = case.checkpoint.label_rows if one_a_tag else case.checkpoint.tags
    reference = case.checkpoint and case.tags and case.embeddings and case.embeddings.tags == case.tags.full_size
    if case.embeddings and case.embeddings.tags and not reference:
        one_a_tag = case.tags is not None and len(case.embeddings.rows) == len(case.tags.names)
        counts[case.embeddings.path.name] = len(case.embeddings.rows) if one_a_tag else case.embeddings.tags
    return counts


def _look_at_list(tags: TagIds, answer: Answer) -> None:
    if twice := {name: count for name, count in Counter(tags.names).items() if count > 1}:
        answer.findings.append(_duplicates(tags, twice))
    if not tags.derived:
        known = sum(i is not None for i in tags.to_full)
        answer.seen.append(("tags", f"another list than {tags.full}: {known} of {len(tags.names)} names stand there"))
        answer.untold.append(Untold("was the list re-indexed", "--full-tags with the list that it was made from"))
    elif not tags.moved and not tags.gone:
        answer.seen.append(("tags", f"every tag has the id that it has in {tags.full}"))
    elif tags.moved:
        answer.findings.append(_reindexed(tags))
    else:
        answer.seen.append(("tags", f"{len(tags.gone)} names of {tags.full} are not there, the others keep their ids"))


def _duplicates(tags: TagIds, twice: dict[str, int]) -> Finding:
    first = next(iter(twice))
    lines = [str(i) for i, name in enumerate(tags.names) if name == first]
    return Finding(
        "tags.duplicates", "note", "certain", f"{len(twice)} names stand on several lines of the tag list",
        [f"{', '.join(map(repr, list(twice)[:SHOWN]))}; ids of {first!r}: {', '.join(lines)}"],
        "Whatever looks a tag up by its name finds one of its lines only, and precision and recall by name mix them.",
        "Drop all but one line of each with `ramflow tags drop id:NUMBER`, which keeps all ids, or give them names "
        "of their own.",
    )  # fmt: skip


def _reindexed(tags: TagIds) -> Finding:
    first, gone = tags.moved[0], tags.gone
    there = tags.to_full[first]
    how = "re-indexed" if tags.in_order else "put in another order"
    title = f"{len(gone)} tags were dropped from the list and the rest {how}" if gone else f"The tag list was {how}"
    runs = f"; the first missing ids: {', '.join(map(str, gone[:5]))}" if gone else ""
    return Finding(
        "tags.reindexed", "cause", "certain", title,
        [f"{tags.path.name} has {len(tags.names):,} names, {tags.full} {tags.full_size:,}{runs}",
         f"{len(tags.moved):,} tags have another id than there, the first is {first} ({tags.names[first]}), there "
         f"{there}"],
        REINDEXED, KEEP_IDS,
    )  # fmt: skip


def _fewer(fewer: dict[str, int]) -> Finding:
    where, count = next(iter(fewer.items()))
    return Finding(
        "tags.reindexed", "cause", "likely",
        f"{PUBLIC_TAGS - count} tags fewer than the public list has: it was re-indexed",
        [f"{n:,} tags in {name}, {PUBLIC_TAGS:,} in the public list" for name, n in fewer.items()],
        REINDEXED, KEEP_IDS + f" Give --tags to see which of the tags {where} has.",
    )  # fmt: skip


def _disagree(counts: dict[str, int]) -> Finding:
    return Finding(
        "tags.disagree", "cause", "certain", "The files are of different numbers of tags",
        [", ".join(f"{count:,} in {where}" for where, count in counts.items())],
        "The class count, the list and the embeddings are separate files in the public code, and nothing compares "
        "them: with another number of rows, the embeddings of one tag are taken for another's.",
        "Find out which of them the run was started with, and make the others again from that one list.",
    )  # fmt: skip
