"""Each component's command, run by the local runner on a small input."""

import json

import pytest

from pipelines.local import StageFailed
from ramflow.verdict import read_verdict
from tests.components.conftest import load, run_alone
from tests.components.small import needs_models

pytestmark = pytest.mark.xdist_group("components")


def names_in(directory):
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}


def test_audit(audited):
    assert read_verdict(audited).passed
    assert names_in(audited) == {"findings.parquet", "quarantine.parquet", "tag_status.csv", "verdict.json"}


def test_a_gate_that_says_no_fails_the_task(root, tiny_data, capfd):
    with pytest.raises(StageFailed, match="stage audit failed with exit code 3"):
        run_alone(load("audit"), root / "refused", {"max_missing_tags_share": 0.0}, data=tiny_data)
    assert "tags.missing" in capfd.readouterr().err


@needs_models
def test_embed(embedded):
    assert read_verdict(embedded).passed
    assert names_in(embedded) == {"tags.safetensors", "captions.safetensors", "verdict.json"}


@needs_models
def test_verify(verified):
    assert read_verdict(verified).passed
    assert names_in(verified) == {"encoder.safetensors", "attestation.json", "verdict.json"}


@needs_models
def test_train(trained):
    verdict = read_verdict(trained)
    assert verdict.passed
    assert verdict.settings["head"]["hidden"] == 16
    assert {"metrics.jsonl", "model/model.safetensors", "model/provenance.json"} <= names_in(trained)


@needs_models
def test_evaluate(evaluated):
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    assert evaluation["metrics"]["images"] == 6
    assert set(evaluation["baselines"]) == {"tag_frequency", "from_scratch"}


@needs_models
def test_report(reported):
    page = reported.read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "a small run" in page
