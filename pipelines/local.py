"""Runs the compiled pipeline on this machine, without Docker and without a cluster.

``python -m pipelines.local [--out runs/local] [NAME=VALUE ...]``: kfp.local carries out ``pipelines/ramflow.yaml``,
each container's command as a process of this machine in the repository's folder. NAME is a parameter of the pipeline.
What the stages write ends up as ``OUT/STAGE/`` and ``OUT/report.html``; the parts that a stage is made from do not.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from kfp import components
from kfp.dsl.structures import InputSpec

from pipelines.host import ROOT, StageFailed, start
from pipelines.summary import summary
from ramflow.errors import UserError

COMPILED = ROOT / "pipelines" / "ramflow.yaml"
WORK = ".kfp"


def run(spec: Path, out: Path, arguments: dict[str, str]) -> None:
    """Run a compiled pipeline; each task's output ends up under its stage's name in ``out``.

    Raises:
        StageFailed: a stage did; the outputs of those before it are in ``out``.
        UserError: ``arguments`` names a parameter that the pipeline lacks, or a value is not of its type.
    """
    pipeline = components.load_component_from_file(str(spec))
    typed = _typed(arguments, pipeline.component_spec.inputs or {})
    places = {task: out / ("report.html" if stage == "report" else stage) for task, stage in _stages(spec).items()}
    for place in places.values():
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    work = out / WORK
    start(work)
    try:
        pipeline(**typed)
    finally:
        for task, place in places.items():
            made = work / pipeline.name / task / "out"
            if made.exists():
                made.replace(place)
    shutil.rmtree(work)


def _typed(arguments: dict[str, str], known: Mapping[str, InputSpec]) -> dict[str, str | int]:
    """The arguments as the pipeline's parameters want them."""
    typed: dict[str, str | int] = {}
    for name, value in arguments.items():
        if name not in known:
            raise UserError(f"{name} is not a parameter of the pipeline: {', '.join(known)}")
        whole = known[name].type == "Integer"
        if whole and not value.isdecimal():
            raise UserError(f"{name}={value}: a whole number is expected")
        typed[name] = int(value) if whole else value
    return typed


def _stages(spec: Path) -> dict[str, str]:
    """The name of the stage behind each task, as dvc.yaml has it; the tasks of the fan-out are none."""
    content = yaml.safe_load(spec.read_text(encoding="utf-8"))
    made = {name: c.get("outputDefinitions", {}).get("artifacts", {}) for name, c in content["components"].items()}
    tasks = content["root"]["dag"]["tasks"].items()
    return {task: t["taskInfo"]["name"] for task, t in tasks if "out" in made[t["componentRef"]["name"]]}


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns 0, or the exit code of the stage that failed."""
    parser = argparse.ArgumentParser("pipeline-local", description="Run the compiled pipeline on this machine.")
    parser.add_argument("--out", type=Path, default=Path("runs/local"), help="where the outputs go (runs/local)")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="parameters of the pipeline")
    given = parser.parse_args(argv)
    try:
        run(COMPILED, ROOT / given.out, dict(a.partition("=")[::2] for a in given.arguments))
    except UserError as error:
        parser.error(str(error))
    except StageFailed as error:
        print(f"pipeline-local: {error}", file=sys.stderr, flush=True)
        return error.code
    print(summary(given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
