"""A stage of dvc.yaml depends on exactly the code that it imports: nothing stale is kept, nothing is redone in vain."""

import ast

import pytest
import yaml

from ramflow.stages import STAGES
from tests.components.small import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MODULES = {s.name: s.run.partition(":")[0] for s in STAGES} | {"report": "ramflow.report.page"}
MODULES["scratch"] = MODULES["train"]
TALK_ONLY = {"ramflow/__init__.py", "ramflow/errors.py", "ramflow/progress.py", "ramflow/stages.py"}
"""Text for people and the table of stages: they change no artifact."""


def file_of(module):
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(*modules):
    """Files of ramflow that the modules import, and these import, relative to the repository."""
    found, open_ = set(), list(modules)
    while open_:
        path = file_of(open_.pop())
        if path.is_file() and path not in found:
            found.add(path)
            open_ += [name for name in imports_of(path) if name.split(".")[0] == "ramflow"]
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.parametrize("stage", DVC)
def test_code(stage):
    imported = closure(MODULES[stage], "ramflow.stage", "ramflow.settings") - TALK_ONLY
    needed = {name if name.count("/") == 1 else name.rpartition("/")[0] for name in imported}
    assert {d for d in DVC[stage]["deps"] if d.startswith("ramflow/")} == needed


@pytest.mark.parametrize("stage", DVC)
def test_pins(stage):
    pins = "data" if stage in ("audit", "report") else "train"
    assert [d for d in DVC[stage]["deps"] if d.startswith("requirements/")] == [f"requirements/{pins}.txt"]
