"""The executor input of Kubeflow Pipelines: its lists of input artifacts as paths, its wish for outputs."""

import json

import pytest
from kfp.dsl import Artifact

from ramflow.errors import UserError
from ramflow.kfp_launcher import input_paths, name_outputs


def executor_input(artifacts):
    """What the launcher passes, as JSON; ``artifacts``: the dictionaries of the list ``parts``."""
    return json.dumps({"inputs": {"parameterValues": {"data": "s3://b/d"}, "artifacts": {"parts": artifacts}}})


@pytest.mark.parametrize("uri", ["gs://b/runs/1/out", "s3://b/runs/1/out", "minio://mlpipeline/v2/out", "/work/1/out"])
def test_a_part_is_where_kfp_says(uri):
    assert input_paths(executor_input({"artifacts": [{"uri": uri}]}), "parts") == [Artifact(uri=uri).path]


def test_all_parts_in_order():
    uris = [f"s3://b/{k}/out" for k in range(12)]
    given = executor_input({"artifacts": [{"uri": uri} for uri in uris]})
    assert input_paths(given, "parts") == [f"/s3/b/{k}/out" for k in range(12)]


def test_a_path_of_the_pipelines_own():
    given = executor_input({"artifacts": [{"uri": "s3://b/1/out", "customPath": "/mnt/1"}]})
    assert input_paths(given, "parts") == ["/mnt/1"]


def test_a_task_without_parts_is_told_from_one_whose_parts_are_lost():
    assert input_paths("{}", "parts") is None
    assert input_paths(executor_input({"artifacts": [{"uri": "/1"}]}), "others") is None
    for empty in ({}, {"artifacts": []}):
        with pytest.raises(UserError, match="the list parts is empty"):
            input_paths(executor_input(empty), "parts")


def test_a_store_that_the_launcher_cannot_bring_here_is_named():
    with pytest.raises(UserError, match="hdfs://b/1/out is in no store"):
        input_paths(executor_input({"artifacts": [{"uri": "hdfs://b/1/out"}]}), "parts")


def test_outputs_are_named_where_they_are_looked_for(tmp_path):
    out = {"artifacts": [{"name": "out", "uri": "s3://b/1/out", "metadata": {}}]}
    path = tmp_path / "new" / "executor_output.json"
    name_outputs(json.dumps({"outputs": {"artifacts": {"out": out}, "outputFile": str(path)}}))
    assert json.loads(path.read_text()) == {"artifacts": {"out": out}}
