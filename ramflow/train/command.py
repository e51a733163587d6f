"""``ramflow train``: what the command line has beside inputs and parameters."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ramflow import storage
from ramflow.errors import UserError
from ramflow.kfp_launcher import name_outputs
from ramflow.settings import read_settings
from ramflow.stage import Stage, execute, open_inputs


def add_options(parser: argparse.ArgumentParser, train: Stage) -> None:
    """The options of ``ramflow train`` beside those that every stage has."""
    for action in parser._actions:
        if action.dest == "out":
            action.required = False  # --profile has none
    parser.add_argument("--logs", type=Path, metavar="DIR",
                        help="folder of what holds times: speed.jsonl, tensorboard/ (default OUT.logs)")  # fmt: skip
    parser.add_argument("--checkpoints", metavar="s3://BUCKET/PREFIX", default="",
                        help="keep checkpoints there too, so that another machine can go on (default OUT.checkpoints "
                        "where OUT is s3://)")  # fmt: skip
    parser.add_argument("--profile", type=int, metavar="STEPS", default=0,
                        help="take some steps, print where their time goes, and write nothing")  # fmt: skip
    parser.set_defaults(run=lambda a: _run(train, a))


def _run(train: Stage, a: argparse.Namespace) -> None:
    settings = read_settings(a.params, a.set).train
    known = (*train.inputs, *train.extras)
    given = {i.name: value for i in known if (value := getattr(a, i.name)) is not None}
    if a.profile < 0:
        raise UserError(f"--profile {a.profile}: give the number of steps to time, for example 20")
    if a.profile:
        paths, _ = open_inputs(train.name, known, given)
        with tempfile.TemporaryDirectory() as folder:
            train.function()(settings, **paths, out=Path(folder), profile=a.profile)
        return
    if not a.out:
        raise UserError("train needs --out, the directory to write (or --profile STEPS)")
    remote = storage.is_remote(a.out)
    if a.checkpoints and not (storage.is_remote(a.checkpoints) and storage.split_address(a.checkpoints)[0]):
        raise UserError(
            f"--checkpoints {a.checkpoints}: give s3://BUCKET/PREFIX; local checkpoints are in OUT.partial anyway"
        )
    checkpoints = a.checkpoints or (f"{a.out.rstrip('/')}.checkpoints" if remote else "")
    logs = a.logs or (None if remote else Path(f"{a.out.rstrip('/')}.logs"))
    execute(train, settings, given, a.out, enforce=a.enforce, options={"logs": logs, "checkpoints": checkpoints})
    if a.executor_input:
        name_outputs(a.executor_input)
