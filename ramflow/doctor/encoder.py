"""Diagnosis of the encoder: was it ever pretrained (F01, F02, F05)?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch
from torch import Tensor

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Certainty, Finding, Untold
from ramflow.doctor.relation import Relation, by_stage, relations, stage_of
from ramflow.weights.numbers import STANDS_OUT, spectral_excess

FEW, MOST = 0.1, 0.9
RANDOM_SHARE = 0.5
"""Share of matrices like noise from which on a file looks never trained; all of a fresh Swin are like it."""
MATRICES = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "reduction.weight")
OTHER_FILE = "If the run meant another weights file, give that one as --weights."
SYMPTOMS = ("distillation.floor", "losses.stall", "losses.swings", "losses.spikes")


def diagnose_encoder(case: Case) -> Answer:
    """Compare the checkpoint's encoder with the weights file; without one, look at what it and the log tell alone."""
    answer = Answer()
    log_says = _log_evidence(case)
    encoder = case.checkpoint.encoder if case.checkpoint else None
    if not encoder:
        if log_says and not case.checkpoint:
            doubt = "To be certain, give --checkpoint and --weights."
            answer.findings.append(_never_loaded([log_says], "likely", doubt))
        return answer
    alone, random_share = by_itself(encoder)
    related = relations(encoder, case.weights.encoder) if case.weights else []
    if related:
        _judge(related, alone, random_share, log_says, answer)
        return answer
    answer.seen.append(("encoder", alone))
    if log_says or random_share >= RANDOM_SHARE:
        evidence = [text for text in (log_says, alone if random_share >= RANDOM_SHARE else "") if text]
        answer.findings.append(_never_loaded(evidence, "likely", "To be certain, give --weights."))
    needs = "--weights with the file that its configuration names"
    if case.weights:
        needs += f" (no matrix of {case.weights.path.name} has the name and shape of the checkpoint's)"
    answer.untold.append(
        Untold("which file the encoder started from, if any: a checkpoint alone does not prove it", needs)
    )
    return answer


def _judge(related: list[Relation], alone: str, random_share: float, log_says: str, answer: Answer) -> None:
    share = sum(r.related for r in related) / len(related)
    cosine, distance = (statistics.median(getattr(r, name) for r in related) for name in ("cosine", "distance"))
    descend = sum(r.related for r in related)
    whole = (f"{descend} of {len(related)} matrices descend from the file: cosine {cosine:+.3f}, distance "
             f"{distance:.2f} of its norm (medians)")  # fmt: skip
    answer.seen.append(("encoder", whole))
    if share <= FEW:
        evidence = [whole, *by_stage(related), alone, *([log_says] if log_says else [])]
        sure = log_says or random_share >= RANDOM_SHARE
        answer.findings.append(_never_loaded(evidence, "certain" if sure else "likely", "" if sure else OTHER_FILE))
    elif share < MOST:
        answer.findings.append(_partly_loaded([r for r in related if not r.related], whole, related))
    if share >= MOST and all(r.equal for r in related):
        answer.seen.append(("encoder", "it equals the file to the bit: it was frozen, or no step was made"))


def _log_evidence(case: Case) -> str:
    """The public code says so on the console when it loads the encoder; before 560542c it never did."""
    log = case.log
    scratch = log and log.writer == "public" and log.created_model and not (log.fine_tuning or log.resumed)
    if log and scratch and not log.loaded_backbone and log.last.rows:
        return (f"{log.path.name} goes from 'Creating RAM model' to training without '### Load Vision Backbone', "
                "which the public code prints when it loads the encoder")  # fmt: skip
    return ""


def by_itself(encoder: Mapping[str, Tensor]) -> tuple[str, float]:
    """What the encoder's numbers say without another file: noise, and how far the norms are from 1."""
    excess = [spectral_excess(t) for key, t in encoder.items() if key.endswith(MATRICES) and t.ndim == 2]
    random = sum(not e >= STANDS_OUT for e in excess)
    norms = [t for key, t in encoder.items() if key.endswith("weight") and t.ndim == 1 and "norm" in key]
    spread = float(torch.cat([n.float() for n in norms]).sub(1).abs().mean()) if norms else 0.0
    text = (f"by itself: {random} of {len(excess)} matrices are like noise (strongest direction "
            f"{statistics.median(excess):.2f} times that of noise), norms {spread:.3f} from a fresh one's "
            "1")  # fmt: skip
    return text, random / len(excess) if excess else 0.0


def _never_loaded(evidence: list[str], certainty: Certainty, doubt: str) -> Finding:
    return Finding(
        "encoder.never_loaded", "cause", certainty, "The encoder was never pretrained: its weights file was not loaded",
        evidence,
        "The encoder learnt from nothing, on tags alone, within a schedule made for a pretrained one. The public "
        "code before commit 560542c (2024-04-13) reads the file and never loads it.",
        "Train again with the encoder loaded: `ramflow verify` proves that a file is, tensor by tensor, and train "
        "refuses to start otherwise. This checkpoint cannot be mended."
        + (f" {doubt}" if doubt else ""),
        SYMPTOMS,
    )  # fmt: skip


def _partly_loaded(foreign: list[Relation], whole: str, related: list[Relation]) -> Finding:
    stages = list(dict.fromkeys(stage_of(r.key) for r in foreign))
    return Finding(
        "encoder.partly_loaded", "cause", "certain",
        f"Only a part of the encoder's weights was loaded: not {', '.join(stages)}",
        [whole, *by_stage(related), "the first unrelated: " + ", ".join(r.key for r in foreign[:3])],
        "A load that skips keys it does not know leaves those layers random, and says so in a line nobody reads.",
        "Load with every key accounted for: `ramflow verify` stops at the first that differs. Train again.",
        SYMPTOMS,
    )  # fmt: skip
