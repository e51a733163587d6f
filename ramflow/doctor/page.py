"""What the doctor prints: for people, and for machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

from ramflow.doctor.finding import Answer, Finding
from ramflow.doctor.ranking import explained_by

WIDTH = 100
LABEL = 12


def as_text(answer: Answer) -> str:
    """A headline, the findings by rank with their evidence, what was looked at, and what cannot be told."""
    explained = explained_by(answer.findings)
    lines = [headline(answer), ""]
    for number, finding in enumerate(answer.findings, 1):
        lines += [*_finding(number, finding, explained), ""]
    if answer.seen:
        lines.append("Looked at")
        last = ""
        for about, text in sorted(answer.seen, key=lambda seen: seen[0]):
            lines += _labelled("" if about == last else about, text)
            last = about
        lines.append("")
    if answer.untold:
        lines.append("Cannot be told")
        for untold in dict.fromkeys(answer.untold):
            lines += textwrap.wrap(f"{untold.question}: give {untold.needs}", WIDTH, initial_indent="  - ",
                                   subsequent_indent="    ")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def headline(answer: Answer) -> str:
    """One line: how many of what was found, and the first of it."""
    if not answer.findings:
        return "Nothing found wrong in what was given."
    counts = {kind: sum(f.kind == kind for f in answer.findings) for kind in ("cause", "symptom", "note")}
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    counted = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    title = answer.findings[0].title
    return f"Found {counted}. First of all: {title[0].lower()}{title[1:]}."


def _finding(number: int, finding: Finding, explained: dict[str, list[int]]) -> Iterator[str]:
    yield f"{number}. {finding.title}  [{finding.kind}, {finding.certainty}]"
    for i, evidence in enumerate(finding.evidence):
        yield from _labelled("evidence" if not i else "", evidence)
    if causes := explained.get(finding.id):
        yield from _labelled("follows", "from " + " and ".join(str(cause) for cause in causes))
    yield from _labelled("means", finding.meaning)
    yield from _labelled("do", finding.advice)


def _labelled(label: str, text: str) -> list[str]:
    indent = " " * (LABEL + 3)
    first = f"   {label:<{LABEL}}"
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def as_json(answer: Answer) -> str:
    """The same as an object: ``findings`` by rank (with ``follows_from``), ``seen``, ``untold``."""
    explained = explained_by(answer.findings)
    findings = [{**asdict(f), "follows_from": explained.get(f.id, [])} for f in answer.findings]
    seen = [{"about": about, "text": text} for about, text in answer.seen]
    untold = [asdict(u) for u in answer.untold]
    content = {"headline": headline(answer), "findings": findings, "seen": seen, "untold": untold}
    return json.dumps(content, indent=1, ensure_ascii=False)
