"""Each component's command, run by the local runner on a small input."""

import json

import pytest

from pipelines.host import StageFailed
from ramflow.storage import sha256_tree
from ramflow.verdict import read_verdict
from tests.components.conftest import load, run_alone
from tests.components.small import needs_models

pytestmark = pytest.mark.xdist_group("components")


def names_in(directory):
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}


def test_shards(ranges, tiny_data):
    taken = [shard for first, end in (r.split(":") for r in ranges) for shard in range(int(first), int(end))]
    shards = json.loads((tiny_data / "dataset.json").read_text())["shards"]
    assert len(ranges) > 2
    assert taken == list(range(len(shards)))


def test_audit_part(parts, ranges):
    verdicts = [read_verdict(part) for part in parts]
    assert [f"{v.metrics['first']}:{v.metrics['end']}" for v in verdicts] == ranges
    assert [v.stage for v in verdicts] == ["audit-part"] * len(ranges)


def test_audit(audited, tiny_audit):
    assert read_verdict(audited).passed
    tables = {"findings.parquet", "quarantine.parquet", "tag_counts.parquet", "tag_status.csv"}
    assert names_in(audited) == tables | {"verdict.json"}
    assert sha256_tree(audited) == sha256_tree(tiny_audit), "the parts together are not the audit of one machine"


def test_a_lost_part_is_not_overlooked(root, tiny_data, parts, capfd):
    with pytest.raises(StageFailed, match="stage audit failed with exit code 2"):
        run_alone(load("audit"), root / "lost", data=tiny_data, parts=parts[:1] + parts[2:])
    assert "the parts leave out shards 2:4" in capfd.readouterr().err
    assert not (root / "lost" / "alone-audit" / "audit" / "out").exists()


def test_a_gate_that_says_no_fails_the_task(root, tiny_data, ranges, capfd):
    strict, place = {"max_missing_tags_share": 0.0}, root / "refused"
    everything = f"0:{ranges[-1].split(':')[1]}"
    part = run_alone(load("audit_part"), place, strict, data=tiny_data, shard_range=everything)
    with pytest.raises(StageFailed, match="stage audit failed with exit code 3"):
        run_alone(load("audit"), place, strict, data=tiny_data, parts=[part])
    assert "tags.missing" in capfd.readouterr().err


@needs_models
def test_embed(embedded):
    assert read_verdict(embedded).passed
    assert names_in(embedded) == {"tags.safetensors", "captions.safetensors", "findings.parquet", "verdict.json"}


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
