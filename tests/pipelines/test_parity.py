"""dvc.yaml and the compiled pipeline are the same stages with the same names, options, wiring and parameters."""

import json
import re
import shlex

import pytest
import yaml

from pipelines.pipeline import COMPILED, compile_to
from ramflow.stages import STAGES
from tests.components.small import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PIPELINE = yaml.safe_load(COMPILED.read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
ROOT_DAG = PIPELINE["root"]["dag"]["tasks"]
TASKS = {task["taskInfo"]["name"]: task for task in ROOT_DAG.values()}
FAN_OUT = {"shards", "audit-parts"}
"""Tasks that dvc.yaml has no stage for: on one machine nothing is cut into ranges (test_fan_out.py)."""
OUTPUTS = {name: f"runs/demo/{name}" for name in TASKS} | {"report": "runs/demo/report.html"}

each_stage = pytest.mark.parametrize("stage", DVC)


def options(words):
    """(command, {option: value or True}) of a command line."""
    found = {}
    for word in words[2:]:
        if word.startswith("--"):
            option = word
            found[option] = True
        else:
            found[option] = word
    return words[:2], found


def dvc_command(stage):
    return options(shlex.split(DVC[stage]["cmd"]))


def value_of(task, argument):
    """What a placeholder of a container's arguments stands for, in the words of dvc.yaml."""
    match = re.fullmatch(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['(\w+)'\](?:\.path)?\}\}", argument)
    if not match:
        return argument
    side, kind, name = match.groups()
    if side == "outputs":
        return OUTPUTS[task["taskInfo"]["name"]]
    source = task["inputs"][kind][name]
    if kind == "artifacts":
        producer = ROOT_DAG[source["taskOutputArtifact"]["producerTask"]]
        return OUTPUTS[producer["taskInfo"]["name"]]
    if "runtimeValue" in source:
        return source["runtimeValue"]["constant"]
    return PIPELINE["root"]["inputDefinitions"]["parameters"][source["componentInputParameter"]]["defaultValue"]


def pipeline_command(stage):
    task = TASKS[stage]
    component = PIPELINE["components"][task["componentRef"]["name"]]
    container = PIPELINE["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    words = list(container["command"])
    for argument in container["args"]:
        if argument.startswith('{"IfPresent"'):
            optional = json.loads(argument)["IfPresent"]
            if optional["InputName"] in task["inputs"]["parameters"]:
                words += optional["Then"]
        else:
            words.append(argument)
    return options([value_of(task, word) for word in words])


def test_same_names():
    assert list(DVC) == ["audit", "embed", "verify", "train", "scratch", "evaluate", "report"]
    assert set(TASKS) == set(DVC) | FAN_OUT
    assert {s.name for s in STAGES} | {"scratch", "report"} == set(DVC)


@each_stage
def test_same_command(stage):
    words, expected = dvc_command(stage)
    pipeline_words, found = pipeline_command(stage)
    assert pipeline_words == words
    del expected["--params"], found["--params"], found["--executor-input"]
    assert found == expected


@each_stage
def test_same_parameters(stage):
    _, found = pipeline_command(stage)
    (section,) = DVC[stage]["params"]
    assert json.loads(found["--params"]) == {section: PARAMS[section]}
    assert dvc_command(stage)[1]["--params"] == "params.yaml"
    assert dvc_command(stage)[0][1] == section


@each_stage
def test_dvc_depends_on_every_input_and_tracks_the_output(stage):
    _, given = dvc_command(stage)
    inputs = {value for option, value in given.items() if option not in ("--params", "--set", "--out", "--enforce")}
    assert inputs <= set(DVC[stage]["deps"])
    assert DVC[stage]["outs"] == [given["--out"]]


@each_stage
def test_only_the_report_is_not_a_gate(stage):
    assert ("--enforce" in dvc_command(stage)[1]) == (stage != "report")


def test_the_compiled_pipeline_is_that_of_the_code(tmp_path):
    compile_to(tmp_path / "ramflow.yaml")
    compiled = yaml.safe_load((tmp_path / "ramflow.yaml").read_text(encoding="utf-8"))
    del compiled["sdkVersion"]
    assert compiled == {key: value for key, value in PIPELINE.items() if key != "sdkVersion"}, "run `make pipeline`"
