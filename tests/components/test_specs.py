"""What a component is: thin, importing nothing of ramflow, and calling the command line exactly as it is."""

import ast
import json
import sys

import pytest

from ramflow.stages import REPORT_INPUTS, STAGES
from tests.components.conftest import load
from tests.components.small import ROOT

INPUTS = {stage.name: stage.inputs for stage in STAGES} | {"report": REPORT_INPUTS}
ADDRESSES = {"data", "descriptions", "clip", "weights"}
IMAGES = json.loads((ROOT / "components" / "images.json").read_text(encoding="utf-8"))

each_stage = pytest.mark.parametrize("stage", INPUTS)


def source(stage):
    return ast.parse((ROOT / "components" / stage / "component.py").read_text(encoding="utf-8"))


def compiled(stage):
    """(component, container) of a stage's compiled spec."""
    spec = load(stage).pipeline_spec
    component = spec.components[f"comp-{stage}"]
    return component, dict(spec.deployment_spec["executors"][component.executor_label]["container"])


def test_one_component_a_stage():
    assert {p.parent.name for p in ROOT.glob("components/*/component.py")} == set(INPUTS)


@each_stage
def test_imports_only_kfp_and_the_standard_library(stage):
    names = set()
    for node in ast.walk(source(stage)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.split(".")[0])
    assert names <= sys.stdlib_module_names | {"kfp"}


@each_stage
def test_body_is_short(stage):
    (function,) = [node for node in source(stage).body if isinstance(node, ast.FunctionDef)]
    assert function.name == stage
    assert function.body[-1].end_lineno - function.body[0].lineno + 1 <= 30


@each_stage
def test_readme_names_every_input(stage):
    text = (ROOT / "components" / stage / "README.md").read_text(encoding="utf-8")
    assert [name for name in load(stage).component_spec.inputs if f"`{name}`" not in text] == []


@each_stage
def test_options_are_those_of_the_command_line(stage):
    _, container = compiled(stage)
    options = [arg for arg in container["args"] if arg.startswith("--")]
    gate = [] if stage == "report" else ["--enforce"]
    expected = ["--params", *(f"--{i.name}" for i in INPUTS[stage]), "--out", *gate, "--executor-input"]
    assert sorted(options) == sorted(expected)
    assert list(container["command"]) == ["ramflow", stage]
    assert container["image"] == IMAGES["data" if stage in ("audit", "report") else "train"]


@each_stage
def test_the_dataset_and_files_are_addresses_and_the_rest_artifacts(stage):
    component, _ = compiled(stage)
    names = {i.name for i in INPUTS[stage]}
    assert set(component.input_definitions.parameters) - {"params", "override"} == names & ADDRESSES
    assert set(component.input_definitions.artifacts) == names - ADDRESSES
    assert list(component.output_definitions.artifacts) == ["out"]
