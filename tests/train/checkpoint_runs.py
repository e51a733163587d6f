"""How tests save, damage and load checkpoints."""

from __future__ import annotations

from ramflow.train.checkpoint import Checkpoints
from tests.train.saving import check, save


def saved(folder, log, steps, keep=2, remote=""):
    """A run that goes on, if there is one, and saves ``steps`` one after the other, each whole before the next."""
    checkpoints = Checkpoints(folder, keep, remote)
    checkpoints.load()
    for step in steps:
        save(checkpoints, step, log)
        checkpoints.wait()
    return checkpoints


def loaded(folder, remote="", keep=2):
    """The step that a new process finds, and failures; what is found is checked to be whole and of one step."""
    checkpoints = Checkpoints(folder, keep, remote)
    found = checkpoints.load()
    check(checkpoints, found)
    return found.step, checkpoints.failures()


def names(folder):
    """Of what is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def cut(path):
    """Remove the last byte."""
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    """Change one bit."""
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
