"""Checkpoints as files: ``step-N/``, whose ``state.json`` is written last and vouches for the rest, and ``best-N``."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ramflow import storage

STATE_FILE = "state.json"
SUFFIX = ".safetensors"


class Torn(Exception):
    """A checkpoint that is not what its ``state.json`` says: the message tells which file, and how."""


@dataclass(frozen=True)
class Note:
    """What ``state.json`` holds.

    Attributes:
        step: steps done.
        state: the trainer's own.
        files: ``sha256:...`` of every other file beside it.
        best: ``sha256:...`` of the best weights so far by file name, in the folder above; empty if there are none yet.
    """

    step: int
    state: dict[str, Any]
    files: dict[str, str]
    best: dict[str, str]

    def text(self) -> str:
        """As in the file; equal notes, equal bytes."""
        return json.dumps(asdict(self), indent=1) + "\n"


def step_name(step: int) -> str:
    """Directory of a checkpoint."""
    return f"step-{step:08d}"


def best_name(step: int) -> str:
    """File of the weights that were best at ``step``."""
    return f"best-{step:08d}{SUFFIX}"


def step_of(name: str) -> int | None:
    """The step of a directory's name, None where it is another."""
    match = re.fullmatch(r"step-(\d{8,})", name)
    return int(match[1]) if match else None


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of a folder, newest first; whether they are whole is not looked at."""
    found = (step_of(path.name) for path in folder.iterdir())
    return sorted((step for step in found if step is not None), reverse=True)


def parse_note(text: bytes | str, step: int) -> Note:
    """The note of the checkpoint of ``step``.

    Raises:
        Torn: it is not one.
    """
    try:
        note = Note(**json.loads(text))
        names = [*note.files, *note.best]
        if note.step != step or not isinstance(note.state, dict) or any(Path(name).name != name for name in names):
            raise ValueError
    except (ValueError, TypeError):
        raise Torn(f"{STATE_FILE} is damaged") from None
    return note


def read_note(path: Path) -> Note:
    """The note of the checkpoint in the directory ``path``.

    Raises:
        Torn: there is none, or it is damaged.
    """
    step = step_of(path.name.removesuffix(storage.PARTIAL))
    assert step is not None, path
    try:
        return parse_note((path / STATE_FILE).read_bytes(), step)
    except OSError as error:
        raise Torn(f"{STATE_FILE}: {_words(error)}") from None


def verify(path: Path) -> Note:
    """The note of a checkpoint all of whose files have their digest; the best weights are not looked at.

    Raises:
        Torn: at the first file that is missing or has other bytes.
    """
    note = read_note(path)
    verify_files(path, note.files)
    return note


def verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare files with their digests.

    Raises:
        Torn: at the first that is missing or has other bytes.
    """
    for name, digest in digests.items():
        try:
            found = storage.sha256_file(folder / name)
        except OSError as error:
            raise Torn(f"{name}: {_words(error)}") from None
        if found != digest:
            raise Torn(f"{name} has other bytes than were written")


def write_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    logs: Mapping[str, bytes],
    state: dict[str, Any],
    best: dict[str, str],
) -> None:
    """Write ``step-N`` whole or not at all, through to the disk.

    Raises:
        OSError: the disk is full or fails; what was there before still is.
    """
    partial = folder / f"{step_name(step)}{storage.PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        files = {name + SUFFIX: write_tensors(partial / (name + SUFFIX), group) for name, group in tensors.items()}
        for name, content in logs.items():
            write_bytes(partial / name, content)
            files[name] = storage.sha256_bytes(content)
        write_bytes(partial / STATE_FILE, Note(step, state, files, best).text().encode())
        publish(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish(partial: Path) -> None:
    """Give a whole ``step-N.partial`` its name; between the two renames of a replacement, :func:`recover` finds it."""
    final = partial.with_name(partial.name.removesuffix(storage.PARTIAL))
    old = final.with_name(f".{final.name}.old{storage.PARTIAL}")
    _sync(partial)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """After a kill: a partial checkpoint that is whole but for its name gets it, all other partial things go."""
    for path in folder.glob(f"*{storage.PARTIAL}"):
        try:
            if step_of(path.name.removesuffix(storage.PARTIAL)) is not None:
                verify(path)
                publish(path)
        except Torn:
            pass
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_best(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> str:
    """Write ``best-N.safetensors`` whole or not at all; returns its digest.

    Raises:
        OSError: the disk is full or fails.
    """
    final = folder / best_name(step)
    partial = final.with_name(final.name + storage.PARTIAL)
    try:
        digest = write_tensors(partial, tensors)
        partial.rename(final)
        _sync(folder)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file through to the disk; returns its digest.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else 0
        raise OSError(code, os.strerror(code), str(path)) from None
    _sync(path)
    return storage.sha256_file(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through to the disk."""
    path.write_bytes(content)
    _sync(path)


def prune(folder: Path, kept: Collection[int]) -> None:
    """Remove all checkpoints but those of the steps ``kept``, then the best weights that none of these names."""
    for step in set(steps(folder)) - set(kept):
        gone = folder / f".{step_name(step)}.old{storage.PARTIAL}"
        shutil.rmtree(gone, ignore_errors=True)
        (folder / step_name(step)).rename(gone)
        shutil.rmtree(gone)
    named: set[str] = set()
    for step in kept:
        with suppress(Torn):
            named.update(read_note(folder / step_name(step)).best)
    for path in folder.glob(f"best-*{SUFFIX}"):
        if path.name not in named and path.name < best_name(max(kept)):  # a newer one waits for its checkpoint
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _words(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
