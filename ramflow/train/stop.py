"""SIGTERM: the step at hand is ended, a checkpoint kept, and the process leaves."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ramflow.errors import UserError


class Stopped(UserError):
    """The run was asked to end and can go on later (exit code 143, as of a process that SIGTERM ended)."""

    exit_code = 143


class StopSignal:
    """Within the block SIGTERM sets ``received`` and does nothing else."""

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
