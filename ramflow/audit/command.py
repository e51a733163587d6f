"""``ramflow audit`` and ``ramflow shards``: argument parsing, and which audit is meant."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ramflow import stage, storage
from ramflow.errors import UserError
from ramflow.kfp_launcher import input_paths, name_outputs
from ramflow.settings import read_settings
from ramflow.stage import Input, Stage, execute
from ramflow.stages import AUDIT_ANNOTATIONS, AUDIT_PART

SURPLUS = {
    "audit": "goes with --annotations: a packed dataset has its own",
    "audit-part": "is for the conclusion: give it with --parts",
    "audit-annotations": "needs a packed dataset: leave it out, or leave out --annotations",
}
"""Why an option is not for this kind of audit."""


def add_options(parser: argparse.ArgumentParser, audit: Stage) -> None:
    """The options of ``ramflow audit`` beside those that every stage has."""
    _add_inputs(parser, audit.extras)
    parser.add_argument("--annotations", nargs="+", metavar="[SPLIT=]FILE",
                        help="audit these annotation files, before any image is there; in place of --data")  # fmt: skip
    parser.add_argument("--tags", help="tag list, a name a line, or a table; with --annotations")
    parser.add_argument("--shard-range", metavar="FIRST:END",
                        help="look at these shards only, END exclusive: makes a part, without conclusions")  # fmt: skip
    parser.add_argument("--parts", nargs="+", metavar="PART", help="conclude from these parts, which cover all shards")
    parser.set_defaults(run=lambda a: _run(audit, a))


def _add_inputs(parser: argparse.ArgumentParser, inputs: tuple[Input, ...]) -> None:
    for i in inputs:
        parser.add_argument(f"--{i.name}", help=i.help + " (optional)")


def _run(audit: Stage, a: argparse.Namespace) -> None:
    settings = read_settings(a.params, a.set).audit
    meant, options = _meant(audit, a)
    known = (*meant.inputs, *meant.extras)
    given = {i.name: value for i in known if (value := getattr(a, i.name)) is not None}
    surplus = [n for n in ("data", "tags", *(i.name for i in audit.extras)) if getattr(a, n) and n not in given]
    if surplus:
        raise UserError(f"--{surplus[0]} {SURPLUS[meant.name]}")
    execute(meant, settings, given, a.out, enforce=a.enforce, options=options)
    if a.executor_input:
        name_outputs(a.executor_input)


def _meant(audit: Stage, a: argparse.Namespace) -> tuple[Stage, dict[str, object]]:
    """Which audit the options ask for, and what its function takes of them."""
    parts = a.parts or (a.executor_input and input_paths(a.executor_input, "parts")) or []
    asked = {"annotations": a.annotations, "shard-range": a.shard_range, "parts": parts}
    kinds = [name for name, value in asked.items() if value]
    if len(kinds) > 1:
        raise UserError(f"--{kinds[0]} and --{kinds[1]} are two different audits: give one of them")
    if a.annotations:
        if not a.tags:
            raise UserError("--annotations needs the tag list that the ids point into: give --tags LIST")
        return AUDIT_ANNOTATIONS, {"annotations": a.annotations}
    if not a.data:
        raise UserError("what is to be audited: give --data DATASET, or --annotations FILE... --tags LIST")
    if a.shard_range:
        return AUDIT_PART, {"shard_range": a.shard_range}
    return audit, {"parts": parts}


def add_shards(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow shards``."""
    parser.add_argument("--data", required=True, help="the packed dataset: local or s3://")
    parser.add_argument("--per-task", type=int, default=64, help="shards in a range (default 64)")
    parser.add_argument("--out", type=Path, help="file to write; printed where it is not given")
    parser.set_defaults(run=_run_shards)


def _run_shards(a: argparse.Namespace) -> None:
    from ramflow.audit.merging import shard_ranges
    from ramflow.data.dataset import Dataset

    if a.per_task < 1:
        raise UserError(f"--per-task {a.per_task}: 1 or more is expected")
    paths, _ = stage.open_inputs("shards", AUDIT_PART.inputs, {"data": a.data})
    shards = Dataset(paths["data"]).shards
    if not shards:
        raise UserError(f"{a.data} has no shard: none of its records has an image")
    text = json.dumps(shard_ranges(len(shards), a.per_task))
    if a.out is None:
        print(text)
        return
    with storage.whole_file(a.out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
