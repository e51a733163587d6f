"""An examination of embeddings in plain words, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from ramflow.embed.diagnosis import Diagnosis
from ramflow.embed.examine import Examination

FIGURES = {
    "identity_rate": "tags whose nearest row is their own, for a fresh vector",
    "min_probe_cosine": "least cosine of a fresh vector with its tag's rows",
    "cosine": "mean cosine of a tag's rows",
    "min_cosine": "least of them",
    "identity": "tags nearest to themselves",
    "correlation": "correlation of tag similarities",
    "neighbours": "nearest tags in common",
}
AGAINST = {"encoder": "against the text encoder", "reference": "against the reference"}
NAMED = 5
SAID_ABOVE = ("_diagnosis", "defects")


def as_text(found: Examination) -> str:
    """What a person reads: figures, what is wrong with its evidence, and the answer in the last line."""
    few, most = found.rows
    rows = f"{few} to {most} rows" if few < most else f"{most} row{'s' * (most > 1)}"
    lines = [f"{found.file}: {len(found.names)} tags, {rows} each, {found.width} wide"]
    for against, title in AGAINST.items():
        if figures := found.figures.get(against):
            lines += ["", title + ":"]
            lines += [f"  {FIGURES[k]:58} {'other width' if v is None else f'{v:.4f}'}" for k, v in figures.items()]
    if found.diagnoses:
        lines += ["", "what was found:"]
    for number, diagnosis in enumerate(found.diagnoses, 1):
        lines.append(f"  {number}. {diagnosis.kind}: {diagnosis.message}")
        lines.append(f"     evidence: {diagnosis.evidence}")
        if named := _named(diagnosis, found):
            lines.append(f"     tags: {named}")
    failed = [c for c in found.checks if not c.passed and not c.id.endswith(SAID_ABOVE)]
    if failed:
        lines += ["", "checks that did not pass:"]
        lines += [f"  {c.severity}: {c.id}: {c.message}" for c in failed]
    return "\n".join([*lines, "", _answer(found)])


def as_json(found: Examination) -> str:
    """The same for a program: one JSON object."""
    content = {
        "file": str(found.file),
        "tags": len(found.names),
        "rows": list(found.rows),
        "width": found.width,
        "passed": not found.failures,
        "figures": {against: figures for against, figures in found.figures.items() if figures},
        "diagnoses": [asdict(d) for d in found.diagnoses],
        "checks": [asdict(c) for c in found.checks],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def _named(diagnosis: Diagnosis, found: Examination) -> str:
    """Names of the first tags, where not nearly all tags are meant and the ids are those of the list."""
    ids = diagnosis.tags
    if not ids or len(ids) > len(found.names) / 2 or max(ids) >= len(found.names):
        return ""
    more = ", ..." if len(ids) > NAMED else ""
    return ", ".join(f"{found.names[tag]} ({tag})" for tag in ids[:NAMED]) + more


def _answer(found: Examination) -> str:
    if found.failures:
        return "answer: NO: do not train with this file before that is mended"
    if not any(found.figures.values()):
        return "answer: sound rows, but not proved to be those of their tags: give --clip or --reference"
    return "answer: yes, the rows belong to their tags"
