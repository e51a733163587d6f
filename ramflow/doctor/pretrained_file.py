"""Diagnosis of the weights file itself: is it a pretrained Swin, and which (F02)?"""

from __future__ import annotations

from ramflow.doctor.case import Case
from ramflow.doctor.encoder import RANDOM_SHARE, by_itself
from ramflow.doctor.finding import Answer, Finding
from ramflow.weights.known import KNOWN


def diagnose_weights(case: Case) -> Answer:
    """Look at every tensor of the weights file."""
    answer = Answer()
    if case.weights is None:
        return answer
    weights = case.weights
    digest = weights.file.source["sha256"].removeprefix("sha256:")
    known = next((k for k in KNOWN if k.sha256 == digest), None)
    named = f"the public {known.name} ({known.remark})" if known else "not a file whose digest is known here"
    text, random_share = by_itself(weights.encoder)
    answer.seen.append(
        ("weights", f"{weights.path.name}: {weights.file.format}, {len(weights.file.keys)} tensors; {named}; {text}")
    )
    bad = [key for key in weights.encoder if not bool(weights.encoder[key].float().isfinite().all())]
    if bad:
        answer.findings.append(_finding("weights.not_finite", "The weights file holds NaN or infinity",
                                        f"{len(bad)} tensors, the first: {', '.join(bad[:3])}"))  # fmt: skip
    elif random_share >= RANDOM_SHARE:
        answer.findings.append(_finding("weights.random", "The weights file was never trained", text))
    return answer


def _finding(id: str, title: str, evidence: str) -> Finding:
    return Finding(
        id, "cause", "certain", title, [evidence],
        "An encoder that starts from it starts from nothing, even if every key is loaded.",
        "Fetch the pretrained file again; `ramflow verify` says whether a file is one.",
        ("distillation.floor", "losses.stall", "losses.swings"),
    )  # fmt: skip
