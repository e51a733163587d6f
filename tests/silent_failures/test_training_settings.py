"""F24 and F35: a setting of the training that nobody reads; F33: a second training loop.

Found in the source: every read of ``settings.NAME`` in the engine, by the types that its functions and classes declare.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
import torch

import ramflow
from ramflow.model.execution import Execution
from ramflow.model.head import TaggingHead
from ramflow.settings import HeadSettings, Section, Settings, TrainSettings
from ramflow.train.stage import run
from tests.train import artifacts, engines

PACKAGE = Path(ramflow.__file__).parent
FORECASTS = {"arithmetic.py", "operations.py", "footprint.py", "relative.py"}
"""What a setting costs, or is compared with, is no use of it."""

Names = dict[str, str]
"""Class of a name."""


def nested(section: type[Section]) -> dict[str, type[Section]]:
    """The section of every field that is one."""
    fields = {name: field.annotation for name, field in section.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, Section)}


SECTIONS: dict[str, type[Section]] = {
    "Settings": Settings, "TrainSettings": TrainSettings,
    **{kind.__name__: kind for kind in nested(TrainSettings).values()},
}  # fmt: skip


class Reader:
    """Which fields of which section some source reads."""

    def __init__(self) -> None:
        self.read: set[tuple[str, str]] = set()
        self.attributes: dict[str, Names] = {
            name: {field: kind.__name__ for field, kind in nested(section).items()}
            for name, section in SECTIONS.items()
        }

    def see(self, source: str) -> None:
        """Take the source of a module in."""
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self._class(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for function in node.body:
                    self._function(function, {"self": node.name})
        for node in tree.body:
            self._function(node, {})

    def _class(self, node: ast.ClassDef) -> None:
        own = self.attributes.setdefault(node.name, {})
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                own[part.target.id] = ast.unparse(part.annotation)
            if isinstance(part, ast.FunctionDef):
                names = self._names(part, {"self": node.name})
                for target, value in assigned(part):
                    kind = self._kind(value, names)
                    if kind and isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        own[target.attr] = kind

    def _function(self, node: ast.AST, names: Names) -> None:
        if not isinstance(node, ast.FunctionDef):
            return
        names = self._names(node, names)
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Load):
                kind = self._kind(part.value, names)
                if kind in SECTIONS:
                    self.read.add((kind, part.attr))

    def _names(self, node: ast.FunctionDef, names: Names) -> Names:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        names = {**names, **{a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation}}
        for target, value in assigned(node):
            kind = self._kind(value, names)
            if kind and isinstance(target, ast.Name):
                names[target.id] = kind
        return names

    def _kind(self, node: ast.expr, names: Names) -> str:
        if isinstance(node, ast.Name):
            return names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self.attributes.get(self._kind(node.value, names), {}).get(node.attr, "")
        return ""


def assigned(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and values of all assignments, those of tuples one by one."""
    pairs = []
    for part in ast.walk(node):
        for target in part.targets if isinstance(part, ast.Assign) else []:
            if isinstance(target, ast.Tuple) and isinstance(part.value, ast.Tuple):
                pairs += zip(target.elts, part.value.elts, strict=True)
            else:
                pairs.append((target, part.value))
    return pairs


def engine_reads() -> set[tuple[str, str]]:
    reader = Reader()
    for path in sorted((*PACKAGE.glob("train/*.py"), *PACKAGE.glob("model/*.py"))):
        if path.name not in FORECASTS:
            reader.see(path.read_text(encoding="utf-8"))
    return reader.read


def unread(section: type[Section], name: str, read: set[tuple[str, str]]) -> list[str]:
    """Fields of a section that nothing reads; the head's are given on whole, and looked at by a test of their own."""
    missed = [field for field in section.model_fields if (name, field) not in read]
    for kind in nested(section).values():
        if kind is not HeadSettings:
            missed += [f"{kind.__name__}.{field}" for field in unread(kind, kind.__name__, read)]
    return missed


def test_f35_every_setting_of_the_training_is_read_by_the_engine():
    assert unread(TrainSettings, "TrainSettings", engine_reads()) == []


def test_f35_a_setting_that_is_accepted_and_ignored_is_seen():
    class Planted(TrainSettings):
        gradient_checkpointing: bool = False

    read = engine_reads()
    assert unread(Planted, "TrainSettings", read) == ["gradient_checkpointing"]
    assert unread(TrainSettings, "TrainSettings", read - {("GuardSettings", "patience")}) == ["GuardSettings.patience"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(s: TrainSettings):\n    return s.batch", {("TrainSettings", "batch")}),
        ("def f(s: Other):\n    return s.batch", set()),
        ("def f(s: TrainSettings):\n    s.batch = 3", set()),
        ("class A:\n    def __init__(self, s: TrainSettings):\n        self.x, self.y = 1, s.guard\n"
         "    def f(self):\n        return self.y.window", {("TrainSettings", "guard"), ("GuardSettings", "window")}),
    ],
)  # fmt: skip
def test_f35_a_read_is_told_from_another_name(source, found):
    reader = Reader()
    reader.see(source)
    assert reader.read == found


def test_f35_every_setting_of_the_head_is_used_by_it():
    body = ast.parse(textwrap.dedent(inspect.getsource(TaggingHead.__init__)))
    used = {n.id for n in ast.walk(body) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert set(HeadSettings.model_fields) <= set(inspect.signature(TaggingHead.__init__).parameters) & used


def kept(settings: TrainSettings) -> int:
    """Bytes that a training step's encoder keeps for the backward pass, as the stage sets it up."""
    model = engines.engine(settings).model
    model.execution = Execution(settings.recompute, torch.float32, settings.slice)
    total, own = 0, {p.data_ptr() for p in model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size() * (tensor.data_ptr() not in own)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.encoder(torch.zeros(4, 3, engines.SIZE, engines.SIZE))
    return total


def test_f35_recomputing_keeps_less_memory():
    none, selective, blocks = (kept(engines.settings(recompute=r)) for r in ("none", "selective", "blocks"))
    assert none > selective > blocks and blocks < none / 3


@pytest.mark.parametrize("recompute", ["selective", "blocks"])
def test_f35_the_stage_hands_it_to_the_encoder(inputs, tmp_path, monkeypatch, recompute):
    seen: list[Execution] = []

    class Enough(Exception):
        pass

    def stop(trainer):
        seen.extend((trainer.model.execution, trainer.model.encoder.execution))
        raise Enough

    monkeypatch.setattr("ramflow.train.stage.Trainer.run", stop)
    settings = artifacts.settings(recompute=recompute, slice=3)
    with pytest.raises(Enough):
        run(settings, **{name: Path(path) for name, path in inputs.items()}, out=tmp_path)
    assert seen == [Execution(recompute, torch.float32, 3)] * 2


def test_f33_there_is_one_training_loop():
    """One file takes gradients of the whole loss and one moves the weights, whatever is trained."""
    places: dict[str, set[str]] = {"backward": set(), "step": set()}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in places:
                called = ast.unparse(node.func.value)
                if node.func.attr == "backward" or "optim" in called:
                    places[node.func.attr].add(path.relative_to(PACKAGE).as_posix())
    assert places == {"backward": {"train/step.py"}, "step": {"train/step.py"}}
