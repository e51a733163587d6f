"""kfp.local made to run container components as processes of this machine, without Docker.

kfp's SubprocessRunner refuses container components, and of loops it knows only those over constants and over returned
values. What is put in kfp's place here is as small as it can be; the pins hold kfp's version.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import executor_input_utils, subprocess_task_handler
from kfp.local.io import IOStore
from kfp.local.orchestrator import enhanced_dag_orchestrator as orchestrator
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.status import Status
from kfp.local.task_handler_interface import ITaskHandler
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineTaskSpec

ROOT = Path(__file__).parents[1]


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
            raise StageFailed(self._stage(), code)
        return Status.SUCCESS

    def _stage(self) -> str:
        """The stage's name, and which part of it this is."""
        after = dict(zip(self.command, self.command[1:], strict=False))
        return self.command[1] + (f" of shards {after['--shard-range']}" if "--shard-range" in after else "")


class OneAfterAnother(orchestrator.ParallelExecutor):
    """Runs a loop's iterations in turn: each uses all cores, and the first that fails ends the run.

    kfp's threads share one log, make a line of it of an iteration's exception, and carry out the rest of the loop.
    """

    def execute_parallel_tasks(
        self,
        tasks: list[tuple[str, PipelineTaskSpec]],
        *,
        io_store: IOStore,
        parallelism_limit: int = 0,
        **others: Any,
    ) -> tuple[dict[str, orchestrator.Outputs], Status]:
        """The outputs of each iteration by its name.

        Raises:
            StageFailed: an iteration did; those after it are not started.
        """
        made: dict[str, orchestrator.Outputs] = {}
        for name, spec in tasks:
            outputs, status = orchestrator.execute_task(task_name=name, task_spec=spec, io_store=io_store, **others)
            if status == Status.FAILURE:
                return {}, status
            for key, output in outputs.items():
                io_store.put_task_output(name, key, output)
            made[name] = outputs
        return made, Status.SUCCESS


def _with_inputs(run_loop: Callable[..., bool]) -> Callable[..., bool]:
    """Let a loop have every input under its own name in its surroundings.

    kfp.local looks there for the items, also when they are a task's named output, and hands the iteration's item out
    in place of any other task's output.
    """

    def run(*, task_spec: PipelineTaskSpec, io_store: IOStore, **others: Any) -> bool:
        for name, value in OrchestratorUtils.make_task_arguments(task_spec.inputs, io_store).items():
            io_store.put_parent_input(name, value)
        named = PipelineTaskSpec()
        named.CopyFrom(task_spec)
        for name, source in named.inputs.parameters.items():
            source.component_input_parameter = name
        return run_loop(task_spec=named, io_store=io_store, **others)

    return run


RUN_LOOP = _with_inputs(orchestrator._run_parallel_for_task)


def start(work: Path) -> None:
    """Make kfp.local run container components as processes, their outputs in ``work/PIPELINE/[LOOP/]TASK/OUTPUT``.

    LOOP has the number of the iteration. kfp would put the time into that path, where a stage that was interrupted
    would not find what it had done.
    """
    subprocess_task_handler.SubprocessTaskHandler = HostProcess
    orchestrator.ParallelExecutor = OneAfterAnother
    orchestrator._run_parallel_for_task = RUN_LOOP
    executor_input_utils.get_local_pipeline_resource_name = lambda name: name
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(work))
