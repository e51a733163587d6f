"""The order of findings: what explains most comes first, and a cause before what it looks like."""

from __future__ import annotations

from ramflow.doctor.finding import Finding

ORDER = (
    "checkpoint.not_finite", "losses.not_finite", "embeddings.empty", "weights.not_finite", "weights.random",
    "encoder.never_loaded", "annotations.old_ids", "embeddings.moved", "annotations.outside", "annotations.foreign",
    "embeddings.differ",
    "tags.disagree",
    "embeddings.uneven", "encoder.partly_loaded", "tags.reindexed", "embeddings.averaged",
    "encoder.window", "batch.unlike", "rate.jump", "scale.runaway",
    "distillation.floor", "losses.spikes", "losses.swings", "losses.stall",
    "tags.never_used", "tags.duplicates", "embeddings.not_unit",
)  # fmt: skip
"""By how much of a bad result each explains: nothing is learnt; another thing is learnt; less or slower is learnt."""


def ranked(findings: list[Finding]) -> list[Finding]:
    """The gravest first, one of an id and title; of two readings of one thing the surer one."""
    best: dict[str, Finding] = {}
    for finding in findings:
        key = finding.id if finding.kind == "cause" else finding.id + finding.title
        if key not in best or (finding.certainty == "certain" and best[key].certainty != "certain"):
            best[key] = finding
    return sorted(best.values(), key=lambda finding: ORDER.index(finding.id))


def explained_by(findings: list[Finding]) -> dict[str, list[int]]:
    """For the id of each symptom found, the numbers (from 1) of the causes found that explain it."""
    ids = {finding.id for finding in findings}
    result: dict[str, list[int]] = {}
    for number, finding in enumerate(findings, 1):
        for symptom in finding.explains:
            if symptom in ids:
                result.setdefault(symptom, []).append(number)
    return result
