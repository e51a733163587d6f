"""What the doctor says: findings with evidence, what was looked at, and what cannot be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cause", "symptom", "note"]
Certainty = Literal["certain", "likely"]


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong.

    A ``cause`` spoils a run, a ``symptom`` is what a cause looks like from outside, a ``note`` is worth knowing and
    spoils little. ``explains`` are ids of the symptoms that follow from it. ``certain``: the files leave no other
    reading; ``likely``: they do, and the evidence says which.
    """

    id: str
    kind: Kind
    certainty: Certainty
    title: str
    evidence: list[str]
    meaning: str
    advice: str
    explains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Untold:
    """A question that the given files do not answer, and what would."""

    question: str
    needs: str


@dataclass
class Answer:
    """What one diagnosis says. ``seen`` are facts, a line each, under the name of what they are about."""

    findings: list[Finding] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    untold: list[Untold] = field(default_factory=list)

    def add(self, other: Answer) -> None:
        """Take over what another diagnosis says."""
        self.findings += other.findings
        self.seen += other.seen
        self.untold += other.untold
