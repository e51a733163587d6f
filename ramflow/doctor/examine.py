"""All diagnoses over one case."""

from __future__ import annotations

from ramflow.doctor.annotations import diagnose_annotations
from ramflow.doctor.batch import diagnose_batch
from ramflow.doctor.case import Case
from ramflow.doctor.checkpoint import diagnose_checkpoint
from ramflow.doctor.distillation import diagnose_distillation
from ramflow.doctor.embeddings import diagnose_embeddings
from ramflow.doctor.encoder import diagnose_encoder
from ramflow.doctor.finding import Answer, Untold
from ramflow.doctor.losses import diagnose_losses
from ramflow.doctor.pretrained_file import diagnose_weights
from ramflow.doctor.ranking import ranked
from ramflow.doctor.rate import diagnose_rate
from ramflow.doctor.release import diagnose_release
from ramflow.doctor.tags import diagnose_tags

DIAGNOSES = (
    diagnose_checkpoint, diagnose_encoder, diagnose_weights, diagnose_tags, diagnose_annotations, diagnose_embeddings,
    diagnose_batch, diagnose_losses, diagnose_distillation, diagnose_rate,
)  # fmt: skip

NOT_GIVEN = {
    "checkpoint": Untold("was the encoder ever pretrained, is the model sound", "--checkpoint, best with --weights"),
    "log": Untold("did the losses spike, swing or stand still", "--log"),
    "tags": Untold("which tags the ids mean, and whether the list was re-indexed", "--tags"),
    "annotations": Untold("do the annotations have the ids of the tag list", "--annotations, with --tags"),
    "embeddings": Untold("do the embeddings belong to the tags", "--embeddings"),
}
"""What no other file tells, by the input that is not given."""


def examine(case: Case) -> Answer:
    """Everything that can be said of a case, its findings ranked."""
    answer = Answer()
    if case.log:
        answer.seen.append(("log", _describe_log(case)))
    for diagnose in DIAGNOSES:
        answer.add(diagnose(case))
    answer.findings = ranked(answer.findings)
    answer.untold += [untold for name, untold in NOT_GIVEN.items() if getattr(case, name) is None]
    answer.add(diagnose_release(case, {finding.id for finding in answer.findings}))
    return answer


def _describe_log(case: Case) -> str:
    log = case.log
    assert log is not None
    who = "ramflow's own" if log.writer == "ramflow" else "the public code's"
    parts = [f"{log.path.name}: {who}, {len(log.last.rows)} rows, {len(log.last.epochs)} epoch means"]
    if len(log.runs) > 1:
        parts.append(f"{len(log.runs)} runs, the last is looked at")
    if log.damaged_lines:
        parts.append(f"{log.damaged_lines} cut lines skipped")
    return "; ".join(parts)
