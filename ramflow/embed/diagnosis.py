"""What may be wrong with embeddings, in the order in which to believe it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KINDS = (
    "faulty_rows", "constant", "random", "unrelated", "another_encoder", "reindexed", "shifted", "permuted",
    "missing_tags", "extra_tags", "rows_shifted", "averaged", "one_row", "other_texts", "not_unit", "half_precision",
)  # fmt: skip
"""Ids of the diagnoses, the gravest first; docs/embeddings.md says what each means and what to do."""

SHOWN = 5


@dataclass(frozen=True)
class Diagnosis:
    """One thing that is wrong with a file of embeddings.

    Attributes:
        kind: one of :data:`KINDS`.
        message: what it is and what to do, in one sentence or two.
        evidence: the figures that say so.
        tags: ids of the tags concerned; of ``reindexed`` and ``missing_tags`` the reference's ids that are gone, of
            all others the candidate's.
        harmless: a fact to know; training with the file does what it should.
    """

    kind: str
    message: str
    evidence: str
    tags: tuple[int, ...] = ()
    harmless: bool = False

    def __post_init__(self) -> None:
        assert self.kind in KINDS


def ranked(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Faults before facts, the gravest first."""
    return sorted(diagnoses, key=lambda d: (d.harmless, KINDS.index(d.kind)))


def some(ids: Sequence[int]) -> str:
    """The first ids, and whether there are more: ``3, 17, 20, ...``."""
    return ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
