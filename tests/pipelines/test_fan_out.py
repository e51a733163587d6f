"""The audit in the compiled pipeline: cut into ranges, a loop over them, one conclusion from all."""

import yaml

from pipelines.pipeline import AUDIT_PARTS_AT_ONCE, COMPILED

PIPELINE = yaml.safe_load(COMPILED.read_text(encoding="utf-8"))
COMPONENTS = PIPELINE["components"]
TASKS = PIPELINE["root"]["dag"]["tasks"]
(LOOP,) = [name for name, task in TASKS.items() if "parameterIterator" in task]
INSIDE = COMPONENTS[TASKS[LOOP]["componentRef"]["name"]]["dag"]


def test_the_loop_is_over_the_ranges_that_shards_makes():
    ranges = TASKS[LOOP]["parameterIterator"]["items"]["inputParameter"]
    source = TASKS[LOOP]["inputs"]["parameters"][ranges]["taskOutputParameter"]
    assert source == {"outputParameterKey": "ranges", "producerTask": "shards"}
    per_task = TASKS["shards"]["inputs"]["parameters"]["per_task"]
    assert per_task == {"componentInputParameter": "shards_per_task"}
    assert PIPELINE["root"]["inputDefinitions"]["parameters"]["shards_per_task"]["defaultValue"] == 64
    assert TASKS[LOOP]["iteratorPolicy"] == {"parallelismLimit": AUDIT_PARTS_AT_ONCE}


def test_each_part_is_given_its_range_and_what_the_audit_is_given():
    assert list(INSIDE["tasks"]) == ["audit-part"]
    given = INSIDE["tasks"]["audit-part"]["inputs"]["parameters"]
    item = TASKS[LOOP]["parameterIterator"]["itemInput"]
    assert given["shard_range"] == {"componentInputParameter": item}
    outside = TASKS[LOOP]["inputs"]["parameters"]
    part = {name: outside[given[name]["componentInputParameter"]] for name in ("params", "data")}
    assert part == TASKS["audit"]["inputs"]["parameters"]


def test_the_conclusion_is_drawn_from_all_parts():
    parts = TASKS["audit"]["inputs"]["artifacts"]["parts"]["taskOutputArtifact"]
    assert parts["producerTask"] == LOOP
    (selector,) = INSIDE["outputs"]["artifacts"][parts["outputArtifactKey"]]["artifactSelectors"]
    assert selector == {"outputArtifactKey": "out", "producerSubtask": "audit-part"}
    assert COMPONENTS["comp-audit"]["inputDefinitions"]["artifacts"]["parts"]["isArtifactList"]


def test_nothing_comes_from_the_cache():
    tasks = [task for name, task in TASKS.items() if name != LOOP] + list(INSIDE["tasks"].values())
    assert [task["taskInfo"]["name"] for task in tasks if task["cachingOptions"].get("enableCache")] == []
