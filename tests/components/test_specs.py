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

FAN_OUT = {
    "shards": ("shards", ["--data", "--per-task", "--out"]),
    "audit_part": ("audit", ["--params", "--data", "--shard-range", "--out", "--executor-input"]),
}
"""Components that are a part of a stage: their command and its options."""

each_stage = pytest.mark.parametrize("stage", INPUTS)
each_component = pytest.mark.parametrize("folder", [*INPUTS, *FAN_OUT])


def source(folder):
    return ast.parse((ROOT / "components" / folder / "component.py").read_text(encoding="utf-8"))


def compiled(folder):
    """(component, container) of a component's compiled spec."""
    spec = load(folder).pipeline_spec
    component = spec.components[f"comp-{folder.replace('_', '-')}"]
    return component, dict(spec.deployment_spec["executors"][component.executor_label]["container"])


def options_of(container):
    return [arg for arg in container["args"] if arg.startswith("--")]


def test_one_component_a_stage_and_those_of_the_fan_out():
    assert {p.parent.name for p in ROOT.glob("components/*/component.py")} == {*INPUTS, *FAN_OUT}


@each_component
def test_imports_only_kfp_and_the_standard_library(folder):
    names = set()
    for node in ast.walk(source(folder)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.split(".")[0])
    assert names <= sys.stdlib_module_names | {"kfp"}


@each_component
def test_body_is_short(folder):
    (function,) = [node for node in source(folder).body if isinstance(node, ast.FunctionDef)]
    assert function.name == folder
    assert function.body[-1].end_lineno - function.body[0].lineno + 1 <= 30


@each_component
def test_readme_names_every_input_and_output(folder):
    text = (ROOT / "components" / folder / "README.md").read_text(encoding="utf-8")
    spec = load(folder).component_spec
    assert [name for name in (*spec.inputs, *spec.outputs) if f"| `{name}` |" not in text] == []


@each_stage
def test_options_are_those_of_the_command_line(stage):
    _, container = compiled(stage)
    gate = [] if stage == "report" else ["--enforce"]
    expected = ["--params", *(f"--{i.name}" for i in INPUTS[stage]), "--out", *gate, "--executor-input"]
    assert sorted(options_of(container)) == sorted(expected)
    assert list(container["command"]) == ["ramflow", stage]
    assert container["image"] == IMAGES["data" if stage in ("audit", "report") else "train"]


@each_stage
def test_the_dataset_and_files_are_addresses_and_the_rest_artifacts(stage):
    component, _ = compiled(stage)
    names = {i.name for i in INPUTS[stage]}
    assert set(component.input_definitions.parameters) - {"params", "override"} == names & ADDRESSES
    parts = {"parts"} if stage == "audit" else set()
    assert set(component.input_definitions.artifacts) == names - ADDRESSES | parts
    assert list(component.output_definitions.artifacts) == ["out"]


@pytest.mark.parametrize("folder", FAN_OUT)
def test_options_of_the_fan_out(folder):
    _, container = compiled(folder)
    command, options = FAN_OUT[folder]
    assert list(container["command"]) == ["ramflow", command]
    assert options_of(container) == options
    assert container["image"] == IMAGES["data"]


def test_shards_hands_out_a_list_and_audit_takes_one():
    shards, _ = compiled("shards")
    assert list(shards.output_definitions.parameters) == ["ranges"]
    assert load("shards").component_spec.outputs["ranges"].type == "List"
    audit, _ = compiled("audit")
    assert audit.input_definitions.artifacts["parts"].is_artifact_list
