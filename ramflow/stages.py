"""The table of stages: names, inputs and order, read by the command line, the pipelines and the tests."""

from __future__ import annotations

from ramflow.stage import Input, Stage

DATA = Input("data", "the packed dataset (ramflow pack)")
CLIP = Input("clip", "a CLIP model in transformers layout: folder or hub copy", gated=False)
AUDIT = Input("audit", "output of the audit stage")
EMBED = Input("embed", "output of the embed stage")
VERIFY = Input("verify", "output of the verify stage")

STAGES = (
    Stage(
        "audit",
        "read every record, decode every image, count every tag",
        (DATA,),
        "ramflow.audit.stage:run",
    ),
    Stage(
        "embed",
        "tag descriptions and captions through the CLIP text encoder",
        (DATA, AUDIT, Input("descriptions", "upstream's description JSON: a list of one-key objects"), CLIP),
        "ramflow.embed.stage:run",
    ),
    Stage(
        "verify",
        "load pretrained encoder weights exactly, and prove it",
        (Input("weights", "the encoder's weights file"), Input("data", DATA.help, required=False),
         Input("embed", "only so that verify comes after it", required=False)),
        "ramflow.weights.stage:run",
    ),
    Stage(
        "train",
        "train RAM++ from the audited data, embeddings and verified weights",
        (DATA, AUDIT, EMBED, VERIFY, CLIP),
        "ramflow.train.stage:run",
        resumable=True,
    ),
    Stage(
        "evaluate",
        "score the test split: mAP, precision, recall, F1, and the baselines",
        (DATA, AUDIT, Input("train", "output of the train stage"),
         Input("scratch", "output of a train stage with from_scratch, to compare with", required=False)),
        "ramflow.evaluate.stage:run",
    ),
)  # fmt: skip

REPORT_INPUTS = (
    DATA,
    Input("audit", AUDIT.help, gated=False),
    Input("embed", EMBED.help, required=False, gated=False),
    Input("verify", VERIFY.help, required=False, gated=False),
    Input("train", "output of the train stage", required=False, gated=False),
    Input("scratch", "output of the from-scratch run", required=False, gated=False),
    Input("evaluate", "output of the evaluate stage", required=False, gated=False),
)
