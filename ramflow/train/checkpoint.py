"""Checkpoints: saved while training goes on, whole on disk and in S3 or not there at all, verified on load.

No pickle, and so not ``torch.distributed.checkpoint`` either, which pickles its metadata: safetensors and JSON.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ramflow.errors import NoSuchObject, UserError
from ramflow.train import checkpoint_files as files
from ramflow.train.checkpoint_files import Note, Torn
from ramflow.train.checkpoint_store import Mirror
from ramflow.train.snapshot import Snapshot

FOLDER = "checkpoints"
MOST_FAILED = 5
"""Checkpoints in a row that may fail to be written."""
PATIENCE = 15.0
"""Seconds that a copy to S3 may take when a run ends: of the 30 that a pod has after SIGTERM, others need some."""


@dataclass
class Checkpoint:
    """A run as it was after ``step`` steps.

    Attributes:
        step: steps done.
        tensors: by group and name, in host memory, as given to :meth:`Checkpoints.save`.
        state: as given. Its ``best_step`` is -1 where the best weights are lost: then there is no best so far.
        logs: the log files as they were, by name.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    logs: dict[str, Path]


class Checkpoints:
    """The checkpoints of one run in a folder, and a copy of them below an s3:// prefix if one is given.

    One thread writes to the folder and another copies to S3, so that a slow store delays neither training nor the
    folder. The newest ``keep`` are kept, in both places, with the best weights that each of them names in
    ``state["best_step"]``. Only one process may save.
    """

    def __init__(self, folder: Path, keep: int, remote: str = "", most_failed: int = MOST_FAILED) -> None:
        """Tidies what a killed process left in the folder; the store is not asked yet.

        Args:
            folder: is made.
            keep: at least 1.
            remote: ``s3://BUCKET/PREFIX``, of this run alone, or nothing.
            most_failed: in a row; the next :meth:`save` is then an error.

        Raises:
            UserError: ``remote`` is malformed.
        """
        assert keep > 0
        self.folder, self.keep, self.most_failed = folder, keep, most_failed
        self._mirror = Mirror(remote) if remote else None
        folder.mkdir(parents=True, exist_ok=True)
        files.recover(folder)
        self._snapshot, self._best_snapshot = Snapshot(), Snapshot()
        self._writer = ThreadPoolExecutor(1, "ramflow-checkpoint")
        self._saving: Future[None] | None = None
        self._writing: Future[None] | None = None
        self._best: dict[int, str] = {}
        self._failed_in_row = 0
        self._guard = threading.RLock()
        self._failures: list[str] = []
        self._torn: set[int] = set()
        self._uploader: threading.Thread | None = None
        self._offered = False
        self._uploading = -1
        self._bug: BaseException | None = None

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any], logs: Sequence[Path]
    ) -> None:
        """Keep the run as it is now; returns when all is copied to memory, once the save before is in the folder.

        Args:
            step: steps done.
            tensors: by group and name; ``GROUP.safetensors`` is the file of a group.
            state: what JSON can hold; ``best_step`` is the step of the last :meth:`save_best`, -1 if there was none.
            logs: small files to keep beside them.

        Raises:
            UserError: the last ``most_failed`` could not be written.
        """
        _result(self._saving)
        self._raise_bug()
        if self._failed_in_row >= self.most_failed:
            raise UserError(
                f"train: the last {self._failed_in_row} checkpoints could not be written to {self.folder}: "
                "mend that disk, then start again; training goes on from the last whole checkpoint"
            )
        self._snapshot.take(tensors)
        contents = {path.name: path.read_bytes() for path in logs}
        own: dict[str, Any] = json.loads(json.dumps(state))
        self._saving = self._writing = self._writer.submit(self._write, step, contents, own)

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best step so far, before any checkpoint that is saved after this call."""
        _result(self._writing)
        self._best_snapshot.take({str(step): tensors})
        self._writing = self._writer.submit(self._write_best, step)

    def wait(self, seconds: float | None = None) -> bool:
        """Until all is written and copied, or for so long; False if the copy to S3 (or the folder) needs longer."""
        end = None if seconds is None else time.monotonic() + seconds
        if self._writing is not None and not wait_for([self._writing], seconds).done:
            return False
        _result(self._writing)
        uploader = self._uploader
        if uploader is not None:
            uploader.join(None if end is None else max(0.0, end - time.monotonic()))
        self._raise_bug()
        return uploader is None or not uploader.is_alive()

    def close(self, seconds: float = PATIENCE) -> None:
        """At the end of a run, whatever the end: all is written, and copied to S3 as far as that takes so long."""
        self._writer.shutdown()
        uploader = self._uploader
        if uploader is not None:
            uploader.join(seconds)

    def failures(self) -> list[str]:
        """One line for each thing that went wrong since the last call."""
        with self._guard:
            lines, self._failures = self._failures, []
        return lines

    def load(self, at_most: int | None = None) -> Checkpoint | None:
        """The newest whole checkpoint, of step ``at_most`` or before; None: there is none, not even a damaged remote.

        One that is newer in S3, or damaged here, is brought from there. One whose best weights are lost is taken only
        where no other is whole.

        Raises:
            UserError: nothing is in the folder, and what is in S3 cannot be had: better than to start from nothing.
        """
        _result(self._writing)
        with self._guard:  # nothing is pruned meanwhile
            return self._load(at_most)

    def _load(self, at_most: int | None) -> Checkpoint | None:
        remote, missed = self._remote_steps()
        steps = {s for s in {*files.steps(self.folder), *remote} if at_most is None or s <= at_most}
        without_best: Note | None = None
        for step in sorted(steps, reverse=True):
            note, lost = self._whole_here(step)
            if lost and step in remote:
                missed = self._fetch(step) or missed
                note, lost = self._whole_here(step)
            if note and not lost:
                return self._loaded(note)
            self._fail(f"checkpoint of step {step}: {lost}; the one before is used")
            without_best = without_best or note
        if without_best:
            without_best.state["best_step"] = -1
            return self._loaded(without_best)
        if missed:
            raise UserError(f"train: no whole checkpoint in {self.folder}, and {missed}: mend that, or start elsewhere")
        return None

    def best(self, step: int) -> dict[str, Tensor]:
        """The weights that were best, as given to :meth:`save_best`.

        Raises:
            UserError: they are damaged on disk.
        """
        _result(self._writing)
        name = files.best_name(step)
        try:
            files.verify_files(self.folder, {name: self._best[step]})
        except Torn as error:
            raise UserError(f"train: {self.folder}: {error}: start again, from the last whole checkpoint") from None
        return load_file(self.folder / name)

    def _write(self, step: int, logs: dict[str, bytes], state: dict[str, Any]) -> None:
        try:
            best = self._named_best(state.get("best_step", -1))
            files.write_checkpoint(self.folder, step, self._snapshot.tensors(), logs, state, best)
        except OSError as error:
            self._failed_in_row += 1
            self._fail(f"checkpoint of step {step} not written to {self.folder}: {_words(error)}")
            return
        self._failed_in_row = 0
        self._torn.discard(step)
        self._prune()
        if self._mirror is not None:
            self._offer()

    def _write_best(self, step: int) -> None:
        try:
            (tensors,) = self._best_snapshot.tensors().values()
            self._best[step] = files.write_best(self.folder, step, tensors)
        except OSError as error:
            self._fail(f"best weights of step {step} not written to {self.folder}: {_words(error)}")

    def _named_best(self, step: int) -> dict[str, str]:
        """Name and digest of the best weights; those that a full disk refused are tried again."""
        if step < 0:
            return {}
        if step not in self._best:
            tensors = self._best_snapshot.tensors()
            assert str(step) in tensors, "save_best comes before the checkpoint that names it"
            self._best[step] = files.write_best(self.folder, step, tensors[str(step)])
        return {files.best_name(step): self._best[step]}

    def _kept(self) -> list[int]:
        return [step for step in files.steps(self.folder) if step not in self._torn][: self.keep]

    def _prune(self) -> None:
        with self._guard:
            kept = {*self._kept(), *([self._uploading] if self._uploading >= 0 else [])}
            if kept:
                files.prune(self.folder, kept)

    def _fail(self, line: str) -> None:
        with self._guard:
            self._failures.append(line)

    def _offer(self) -> None:
        """Have the uploader look for what is not in S3 yet."""
        with self._guard:
            self._offered = True
            if self._uploader is None:
                self._uploader = threading.Thread(target=self._upload, name="ramflow-upload", daemon=True)
                self._uploader.start()

    def _upload(self) -> None:
        assert self._mirror is not None
        try:
            while self._is_offered():
                self._push_all(self._mirror)
        except BaseException as error:
            self._bug = error

    def _is_offered(self) -> bool:
        with self._guard:
            offered, self._offered = self._offered, False
            if not offered:
                self._uploader = None
            return offered

    def _push_all(self, mirror: Mirror) -> None:
        """Copy the kept ones, the newest first, whatever is saved meanwhile; then remove older ones there."""
        try:
            while (step := self._next_upload(mirror)) >= 0:
                try:
                    mirror.push(self.folder, step)
                except Torn as error:
                    self._torn.add(step)
                    self._fail(f"checkpoint of step {step}: {error}; not copied to {mirror.address}")
            mirror.tidy(self.keep)
        except (UserError, OSError) as error:
            self._fail(f"checkpoint of step {self._uploading} not copied: {_words(error)}; the next save tries again")
        finally:
            self._uploading = -1
            self._prune()

    def _next_upload(self, mirror: Mirror) -> int:
        """The step to copy next, which is not removed while it is copied; -1: all are there."""
        with self._guard:
            self._uploading = next((step for step in self._kept() if not mirror.holds(step)), -1)
            return self._uploading

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _remote_steps(self) -> tuple[list[int], str]:
        """Steps of the checkpoints in S3, or why they are not known."""
        if self._mirror is None:
            return [], ""
        try:
            return self._mirror.steps(), ""
        except UserError as error:
            self._fail(f"checkpoints in S3 not looked at: {error}")
            return [], str(error)

    def _whole_here(self, step: int) -> tuple[Note | None, str]:
        """The note of a checkpoint in the folder if its own files are whole, and what is lost of it or its best."""
        note = None
        try:
            note = files.verify(self.folder / files.step_name(step))
            files.verify_files(self.folder, note.best)
        except Torn as error:
            if note is None and (self.folder / files.step_name(step)).exists():
                self._torn.add(step)
            return note, str(error)
        self._torn.discard(step)
        return note, ""

    def _fetch(self, step: int) -> str:
        """Bring one from S3; why not, unless it is known to be damaged there."""
        assert self._mirror is not None
        try:
            self._mirror.fetch(self.folder, step)
        except (Torn, NoSuchObject) as error:
            self._fail(f"checkpoint of step {step} in S3: {error}")
        except (UserError, OSError) as error:
            self._fail(f"checkpoint of step {step} not brought from S3: {_words(error)}")
            return _words(error)
        return ""

    def _loaded(self, note: Note) -> Checkpoint:
        best_step = note.state.get("best_step", -1)
        if best_step >= 0:
            self._best[best_step] = note.best[files.best_name(best_step)]
        path = self.folder / files.step_name(note.step)
        groups = {n.removesuffix(files.SUFFIX): load_file(path / n) for n in note.files if n.endswith(files.SUFFIX)}
        logs = {name: path / name for name in note.files if not name.endswith(files.SUFFIX)}
        return Checkpoint(note.step, groups, note.state, logs)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors named ``PARAMETER/KEY``, not copied."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Bring back what :func:`optimizer_tensors` gave, bit for bit; state that is not in ``tensors`` is forgotten."""
    parameters = dict(model.named_parameters())
    on_device = {p: g.get("fused") or g.get("capturable") for g in optimizer.param_groups for p in g["params"]}
    optimizer.state.clear()
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        if value.shape == parameter.shape and key != "step":
            copy = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        else:
            copy = value.to(parameter.device if key != "step" or on_device[parameter] else "cpu", copy=True)
        optimizer.state[parameter][key] = copy


def _result(future: Future[None] | None) -> None:
    if future is not None:
        future.result()


def _words(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()) or type(error).__name__
