"""Runs the compiled pipeline on this machine, without Docker and without a cluster.

``python -m pipelines.local [--out runs/local] [NAME=VALUE ...]``: kfp.local carries out ``pipelines/ramflow.yaml``,
each container's command as a process of this machine in the repository's folder. NAME is a parameter of the pipeline.
What the stages write ends up as ``OUT/STAGE/`` and ``OUT/report.html``.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from kfp import components, local
from kfp.local import executor_input_utils, subprocess_task_handler
from kfp.local.status import Status
from kfp.local.task_handler_interface import ITaskHandler

from pipelines.summary import summary

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "pipelines" / "ramflow.yaml"
WORK = ".kfp"


class StageFailed(Exception):
    """A stage's process did not exit with 0."""

    def __init__(self, stage: str, code: int) -> None:
        super().__init__(f"stage {stage} failed with exit code {code}; the stages after it were not run")
        self.code = code


class HostProcess(ITaskHandler):
    """Runs a container's command as a process of this machine; the image plays no part.

    Stands in for kfp's handler of SubprocessRunner, which refuses container components and cuts progress bars up.
    """

    def __init__(
        self,
        image: str,
        full_command: list[str],
        pipeline_root: str,
        runner: local.SubprocessRunner,
        env_vars: dict[str, str] | None = None,
    ) -> None:
        self.command = full_command

    def run(self) -> Status:
        """Wait for the process to end, also after Ctrl-C, which it has received too and answers in good order.

        Raises:
            StageFailed: its exit code is not 0.
        """
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(self.command, cwd=ROOT, env={**os.environ, "PATH": path})
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue
        if code:
            raise StageFailed(self.command[1], code)
        return Status.SUCCESS


def start(work: Path) -> None:
    """Make kfp.local run container components as processes, with outputs in ``work/PIPELINE/TASK/OUTPUT``.

    kfp puts the time into that path, where a stage that was interrupted would not find what it had done.
    """
    subprocess_task_handler.SubprocessTaskHandler = HostProcess
    executor_input_utils.get_local_pipeline_resource_name = lambda name: name
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(work))


def run(spec: Path, out: Path, arguments: dict[str, str]) -> None:
    """Run a compiled pipeline; each task's output ends up under its stage's name in ``out``.

    Raises:
        StageFailed: a stage did; the outputs of those before it are in ``out``.
        ValueError: ``arguments`` names a parameter that the pipeline lacks.
    """
    pipeline = components.load_component_from_file(str(spec))
    known = pipeline.component_spec.inputs or {}
    if unknown := sorted(set(arguments) - set(known)):
        raise ValueError(f"{unknown[0]} is not a parameter of the pipeline: {', '.join(known)}")
    places = {task: out / ("report.html" if stage == "report" else stage) for task, stage in _stages(spec).items()}
    for place in places.values():
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    work = out / WORK
    start(work)
    try:
        pipeline(**arguments)
    finally:
        for task, place in places.items():
            made = work / pipeline.name / task / "out"
            if made.exists():
                made.replace(place)
    shutil.rmtree(work)


def _stages(spec: Path) -> dict[str, str]:
    """The name of the stage behind each task, as dvc.yaml has it."""
    tasks = yaml.safe_load(spec.read_text(encoding="utf-8"))["root"]["dag"]["tasks"]
    return {task: content["taskInfo"]["name"] for task, content in tasks.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns 0, or the exit code of the stage that failed."""
    parser = argparse.ArgumentParser("pipeline-local", description="Run the compiled pipeline on this machine.")
    parser.add_argument("--out", type=Path, default=Path("runs/local"), help="where the outputs go (runs/local)")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="parameters of the pipeline")
    given = parser.parse_args(argv)
    try:
        run(COMPILED, ROOT / given.out, dict(a.partition("=")[::2] for a in given.arguments))
    except ValueError as error:
        parser.error(str(error))
    except StageFailed as error:
        print(f"pipeline-local: {error}", file=sys.stderr, flush=True)
        return error.code
    print(summary(given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
