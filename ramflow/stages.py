"""The table of stages: names, inputs and order, read by the command line, the pipelines and the tests."""

from __future__ import annotations

from ramflow.stage import Input, Stage

DATA = Input("data", "the packed dataset (ramflow pack)", made_by=("pack",))
CLIP = Input("clip", "a CLIP in transformers layout: a folder, or OWNER/NAME[@REVISION] of the Hugging Face hub",
             required=False, gated=False, hub=True, default="openai/clip-vit-base-patch16")  # fmt: skip
AUDIT = Input("audit", "output of the audit stage", made_by=("audit",))
EMBED = Input("embed", "output of the embed stage", made_by=("embed",))
VERIFY = Input("verify", "output of the verify stage", made_by=("verify",))

COMPARED = (
    Input("previous", "output of an earlier audit, to see what drifted", required=False, gated=False, related=False,
          made_by=("audit", "audit-annotations")),
    Input("thresholds", "list of thresholds, a number a line: has it the tag list's length", required=False),
    Input("embeddings", "embeddings of the tags, .safetensors or .pth: have they the tag list's length", required=False,
          gated=False),
)  # fmt: skip
"""What any audit can be compared with."""

STAGES = (
    Stage(
        "audit",
        "read every record, decode every image, count every tag",
        (Input("data", DATA.help, required=False, made_by=DATA.made_by),),
        "ramflow.audit.stage:run",
        extras=(Input("benchmarks", "folder of the benchmarks' images: are any in the train split", required=False),
                *COMPARED),
    ),
    Stage(
        "embed",
        "tag descriptions and captions through the CLIP text encoder",
        (DATA, AUDIT,
         Input("descriptions", "texts of every tag: upstream's JSON, {tag: texts}, or tag<TAB>text lines",
               required=False),
         CLIP),
        "ramflow.embed.stage:run",
        resumable=True,
        extras=(Input("embeddings", "tag embeddings in place of encoding descriptions: upstream's .pth, a "
                      "RAM++ checkpoint, or ramflow's", required=False, gated=False, related=False),
                Input("reference", "tag embeddings that are known to be right, to compare with", required=False,
                      gated=False, related=False)),
    ),
    Stage(
        "verify",
        "load pretrained encoder weights exactly, and prove it",
        (Input("weights", "the encoder's weights file: a Swin of Microsoft, timm or Hugging Face, a checkpoint of "
               "RAM, RAM++ or Tag2Text, or model.safetensors of train"),
         Input("data", DATA.help, required=False),
         Input("embed", "only so that verify comes after it", required=False)),
        "ramflow.weights.stage:run",
    ),
    Stage(
        "train",
        "train RAM++ from the audited data, embeddings and verified weights",
        (DATA, AUDIT, EMBED, VERIFY, CLIP),
        "ramflow.train.stage:run",
        resumable=True,
        extras=(Input("start", "go on from a trained model (fine-tuning): output of train, or a RAM++ checkpoint; its "
                      "encoder comes through verify", required=False, related=False),),
        free=("micro_batch", "recompute", "slice", "compile", "device", "workers", "guard", "max_skipped_share",
              "checkpoint_every", "keep_checkpoints"),
        distributed=True,
    ),
    Stage(
        "evaluate",
        "score the test split: mAP, precision, recall, F1, and the baselines",
        (DATA, AUDIT, Input("train", "output of the train stage"),
         Input("scratch", "output of a train stage with from_scratch, to compare with", required=False)),
        "ramflow.evaluate.stage:run",
    ),
)  # fmt: skip

AUDIT_PART = Stage("audit-part", "the audit of a range of shards", (DATA,), "ramflow.audit.stage:run_part")
AUDIT_ANNOTATIONS = Stage(
    "audit-annotations", "the audit of annotation files, before any image is there",
    (Input("tags", "the tag list that the ids point into", gated=False),), "ramflow.audit.stage:run_annotations",
    extras=COMPARED,
)  # fmt: skip

REPORT_INPUTS = (
    DATA,
    Input("audit", AUDIT.help, gated=False, made_by=AUDIT.made_by),
    Input("embed", EMBED.help, required=False, gated=False),
    Input("verify", VERIFY.help, required=False, gated=False),
    Input("train", "output of the train stage", required=False, gated=False),
    Input("scratch", "output of the from-scratch run", required=False, gated=False),
    Input("evaluate", "output of the evaluate stage", required=False, gated=False),
)

REPORT_EXTRAS = (
    Input("logs", "what train wrote to --logs: throughput, data wait, memory", required=False, gated=False,
          related=False),
)  # fmt: skip
"""Inputs that only the command line has: they hold times, and a page of the pipeline is the same in every run."""
