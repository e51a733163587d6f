"""``ramflow STAGE``: argument parsing, and errors as one line."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ramflow import __version__
from ramflow.audit import command as audit_command
from ramflow.errors import UserError
from ramflow.kfp_launcher import name_outputs
from ramflow.settings import Section, Settings, read_settings
from ramflow.stage import Input, Stage, execute
from ramflow.stages import REPORT_EXTRAS, REPORT_INPUTS, STAGES
from ramflow.train import command as train_command

COMMANDS = {
    "tags": ("show, import, export and change tag lists without moving an id", "ramflow.tag_lists.command"),
    "embeddings": ("import, export and check embeddings of tags", "ramflow.embed.command"),
    "tag": ("tag pictures with a trained model", "ramflow.tagging.command"),
    "export": ("write a trained model or verified weights in the public code's layout", "ramflow.weights.command"),
    "doctor": ("say what went wrong in a run made elsewhere", "ramflow.doctor.command"),
}
"""Commands that are no stages: a line of help, and the module whose ``add_options`` takes the parser."""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as every other user error."""

    def error(self, message: str) -> NoReturn:
        """Print ``prog: message`` and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user can mend it, 3 a gate says no, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on or starts again", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
    except Exception as error:
        number = _system_error(error)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        where = getattr(error, "filename", None) or "writing the output"
        return _fail(f"{where}: {os.strerror(number)}; nothing half-written was kept", 2)
    return 0


def _system_error(error: Exception) -> int:
    """The errno behind an error, or 0; libraries written in Rust (polars, safetensors) name it in the text only."""
    if isinstance(error, OSError):
        return error.errno or 0
    named = re.search(r"\(os error (\d+)\)", str(error))
    return int(named[1]) if named else 0


def _fail(message: str, code: int) -> int:
    print("ramflow: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "ramflow", description="Train Recognize Anything (RAM++) taggers, and know that the run can be trusted."
    )
    parser.add_argument("--version", action="version", version=f"ramflow {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_pack(commands)
    for stage in STAGES:
        _add_stage(commands, stage)
    _add_shards(commands)
    _add_report(commands)
    for name, (text, module) in COMMANDS.items():
        import_module(module).add_options(commands.add_parser(name, help=text, description=text))
    _add_settings(commands)
    return parser


def _add_pack(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "annotations and images into tar shards and a manifest"
    parser = commands.add_parser("pack", help=text, description=text)
    parser.add_argument("--annotations", nargs="+", metavar="[SPLIT=]FILE",
                        help="upstream's JSON lists; SPLIT is train (default), validation or test")  # fmt: skip
    parser.add_argument("--images", nargs="+", metavar="[path=|caption=]ROOT",
                        help="where the images are: a folder, a .tar, or an s3:// address of either; the .tar files "
                        "directly in a folder are read too")  # fmt: skip
    parser.add_argument("--tags", type=Path, help="tag list, a name a line, or a table (ramflow tags)")
    parser.add_argument("--out", type=Path, help="the dataset directory to make")
    parser.add_argument("--shard-mb", type=float, default=256, help="size of a shard in MiB (default 256)")
    parser.add_argument("--match", choices=("path", "caption"), default="path",
                        help="how images belong to records, for a ROOT that does not say: by image_path (default), or "
                        "by the caption in NAME.txt or NAME.json beside it, as img2dataset writes them")  # fmt: skip
    parser.add_argument("--max-missing", type=float, metavar="SHARE", default=0.5,
                        help="share of records whose image may be missing (default 0.5)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--plan", type=Path, metavar="DIR",
                        help="keep the plan in DIR, for other machines; without --out only that is done, and the "
                        "number of shards printed")  # fmt: skip
    parser.add_argument("--shard-range", metavar="FIRST:END",
                        help="pack these shards of the plan only, END exclusive: OUT is a part")
    parser.add_argument("--parts", nargs="+", type=Path, metavar="PART", help="put these parts together into OUT")
    parser.set_defaults(run=_run_pack)


def _run_pack(a: argparse.Namespace) -> None:
    from ramflow.data.pack import Source, make_plan_only, pack, pack_part
    from ramflow.data.parts import collect
    from ramflow.data.shard_range import parse_range

    for name, value, valid in (("shard-mb", a.shard_mb, a.shard_mb > 0), ("workers", a.workers, 1 <= a.workers <= 256),
                               ("max-missing", a.max_missing, 0 <= a.max_missing <= 1)):  # fmt: skip
        if not valid:
            raise UserError(f"--{name} {value}: not a sensible value, see ramflow pack --help")
    needed = [] if a.parts else ["annotations", "images", "tags"]
    needed += ["out"] if a.parts or a.shard_range or not a.plan else []
    if absent := [f"--{name}" for name in needed if not getattr(a, name)]:
        raise UserError(f"pack needs {', '.join(absent)} too, see ramflow pack --help")
    if a.parts:
        if given := [f"--{n}" for n in ("annotations", "images", "tags", "plan", "shard_range") if getattr(a, n)]:
            raise UserError(f"--parts takes what the parts were packed from: leave out {', '.join(given)}")
        collect(a.parts, a.out, max_missing=a.max_missing)
        return
    options = {"shard_bytes": max(1, int(a.shard_mb * 2**20)), "match": a.match, "workers": a.workers, "plan": a.plan}
    source = Source(a.annotations, a.images, a.tags, **options)
    if a.shard_range:
        pack_part(source, parse_range(a.shard_range), a.out)
    elif a.out:
        pack(a.annotations, a.images, a.tags, a.out, max_missing=a.max_missing, **options)
    else:
        print(make_plan_only(source))


def _add_stage(commands: argparse._SubParsersAction[_Parser], stage: Stage) -> None:
    parser = commands.add_parser(stage.name, help=stage.summary, description=stage.summary)
    _add_common(parser, stage.inputs if stage.name == "audit" else stage.inputs + stage.extras)
    parser.add_argument("--out", required=True, help="directory to write: local or s3://")
    parser.add_argument("--enforce", action="store_true", help="exit with 3 when the verdict is a no")
    parser.add_argument(
        "--executor-input", help="given by Kubeflow Pipelines: where its launcher wants the outputs named"
    )
    if stage.name == "verify":
        parser.add_argument("--encoder", help="timm name of the encoder; short for --set verify.encoder=NAME")
    parser.set_defaults(run=lambda a: _run_stage(stage, a))
    if stage.name == "audit":
        audit_command.add_options(parser, stage)
    if stage.name == "train":
        train_command.add_options(parser, stage)


def _add_shards(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "list ranges of shards, to audit each on a machine of its own"
    audit_command.add_shards(commands.add_parser("shards", help=text, description=text))


def _add_common(parser: argparse.ArgumentParser, inputs: tuple[Input, ...]) -> None:
    parser.add_argument("--params", help="YAML file of parameters, or its content as a JSON object")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one parameter")
    for i in inputs:
        needed = "" if i.required else f" (default {i.default})" if i.default else " (optional)"
        parser.add_argument(f"--{i.name}", required=i.required, help=i.help + needed)


def _given(a: argparse.Namespace, inputs: tuple[Input, ...]) -> dict[str, str]:
    return {i.name: value for i in inputs if (value := getattr(a, i.name.replace("-", "_"))) is not None}


def _run_stage(stage: Stage, a: argparse.Namespace) -> None:
    overrides = [*a.set, *([f"verify.encoder={a.encoder}"] if getattr(a, "encoder", None) else [])]
    settings: Section = getattr(read_settings(a.params, overrides), stage.name)
    execute(stage, settings, _given(a, stage.inputs + stage.extras), a.out, enforce=a.enforce)
    if a.executor_input:
        name_outputs(a.executor_input)


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "one self-contained page of all that the stages found"
    parser = commands.add_parser("report", help=text, description=text)
    _add_common(parser, REPORT_INPUTS + REPORT_EXTRAS)
    parser.add_argument("--out", required=True, type=Path, help="the HTML file to write")
    parser.add_argument(
        "--executor-input", help="given by Kubeflow Pipelines: where its launcher wants the outputs named"
    )
    parser.set_defaults(run=_run_report)


def _run_report(a: argparse.Namespace) -> None:
    from ramflow.report.page import write_report

    settings = read_settings(a.params, a.set).report
    write_report(settings, _given(a, REPORT_INPUTS + REPORT_EXTRAS), a.out)
    if a.executor_input:
        name_outputs(a.executor_input)


def _add_settings(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "list every parameter, its default and what it does"
    parser = commands.add_parser("settings", help=text, description=text)
    parser.add_argument("--params", help="show the values of this file instead of the defaults")
    parser.set_defaults(run=lambda a: _print_section(read_settings(a.params), ""))


def _print_section(section: Section, prefix: str) -> None:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            if isinstance(section, Settings):
                print(f"\n# {info.description}")
            _print_section(value, f"{prefix}{name}.")
        else:
            print(f"{prefix}{name} = {value!r}    {info.description}")


if __name__ == "__main__":
    sys.exit(main())
