"""``ramflow doctor``: argument parsing, and reading what was given."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ramflow.errors import GateRefused, UserError

if TYPE_CHECKING:
    from ramflow.doctor.case import Case

GIVEN = ("log", "checkpoint", "weights", "tags", "embeddings", "annotations")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow doctor``."""
    parser.add_argument(
        "--log", type=Path, help="console output or log.txt of the training, or ramflow's metrics.jsonl"
    )
    parser.add_argument("--checkpoint", type=Path, help="checkpoint_XX.pth, or the output of ramflow's train stage")
    parser.add_argument("--weights", type=Path, help="the pretrained file that the encoder should have started from")
    parser.add_argument("--tags", type=Path, help="the tag list that the run was trained with")
    parser.add_argument("--full-tags", type=Path, metavar="TAGS",
                        help="the list that --tags was made from (default: the public one of 4585 names)")  # fmt: skip
    parser.add_argument("--embeddings", type=Path, help="the tag embeddings that the run was trained with")
    parser.add_argument("--annotations", nargs="+", metavar="FILE", help="annotation files in upstream's format")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--enforce", action="store_true", help="exit with 3 if a cause was found")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read, examine and print.

    Raises:
        UserError: nothing was given, or a file is unreadable.
        GateRefused: under ``--enforce``, a cause was found.
    """
    from ramflow.doctor.examine import examine
    from ramflow.doctor.page import as_json, as_text, headline

    answer = examine(read_case(arguments))
    print(as_json(answer) if arguments.json else as_text(answer))
    if arguments.enforce and any(finding.kind == "cause" for finding in answer.findings):
        raise GateRefused(f"doctor: {headline(answer)}")


def read_case(arguments: argparse.Namespace) -> Case:
    """Read every file that was given, the quick ones first, so that a mistake shows at once."""
    from ramflow.doctor.annotation_files import read_annotations
    from ramflow.doctor.case import Case
    from ramflow.doctor.checkpoint_file import read_checkpoint
    from ramflow.doctor.embedding_file import read_embedding_file
    from ramflow.doctor.log_file import read_log
    from ramflow.doctor.recipe import descriptions_a_tag
    from ramflow.doctor.tag_ids import read_tag_ids
    from ramflow.doctor.weights_file import read_swin

    a = arguments
    if not any(getattr(a, name) for name in GIVEN):
        raise UserError("doctor needs something to look at: give any of " + ", ".join(f"--{name}" for name in GIVEN))
    if a.full_tags and not a.tags:
        raise UserError("--full-tags is what --tags is compared with: give --tags too")
    tags = read_tag_ids(a.tags, a.full_tags) if a.tags else None
    checkpoint = read_checkpoint(a.checkpoint) if a.checkpoint else None
    if checkpoint and tags:
        checkpoint = replace(checkpoint, per_tag=descriptions_a_tag(checkpoint.label_rows, len(tags.names)))
    return Case(
        log=read_log(a.log) if a.log else None,
        tags=tags,
        embeddings=read_embedding_file(a.embeddings) if a.embeddings else None,
        weights=read_swin(a.weights) if a.weights else None,
        checkpoint=checkpoint,
        annotations=read_annotations(a.annotations, tags) if a.annotations else None,
    )
