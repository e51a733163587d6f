"""How every stage runs: gates obeyed, inputs that belong together, outputs whole."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ramflow import stage, storage
from ramflow.errors import GateRefused, UserError
from ramflow.settings import AuditSettings, Section
from ramflow.stage import Input, Stage, execute
from ramflow.stages import STAGES
from ramflow.storage import sha256_file, sha256_tree
from ramflow.verdict import Verdict, check

AUDIT = next(s for s in STAGES if s.name == "audit")
SETTINGS = AuditSettings(max_missing_tags_share=0.2, rare_below=2, workers=1)
INPUTS = (Input("data", "a dataset"), Input("audit", "its audit"), Input("notes", "any file", required=False))


class CountSettings(Section):
    """Parameters of the stages below."""

    limit: int = 0
    fail: bool = False


def count(settings: CountSettings, *, data: Path, audit: Path, out: Path, notes: Path | None = None) -> Verdict:
    """Counts what the audit quarantined; a stage as any other, small enough to see through."""
    quarantined = len(pl.read_parquet(audit / "quarantine.parquet"))
    (out / "count.txt").write_text(f"{quarantined}\n", encoding="utf-8")
    if settings.fail:
        raise ZeroDivisionError
    return Verdict("count", [check("count.any", "error", quarantined + settings.limit, 24, "too many: count again")])


COUNT = Stage("count", "count", INPUTS, "tests.test_stage:count")


@pytest.fixture
def inputs(tiny_data, tiny_audit):
    return {"data": str(tiny_data), "audit": str(tiny_audit)}


def test_the_verdict_names_what_went_in_and_came_out(inputs, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    execute(COUNT, CountSettings(), inputs | {"notes": str(tmp_path / "notes.txt")}, str(tmp_path / "out"))
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert verdict["stage"] == "count" and verdict["passed"] is True
    assert verdict["settings"] == {"limit": 0, "fail": False}
    assert verdict["inputs"] == {
        "data": sha256_file(Path(inputs["data"]) / "dataset.json"),
        "audit": sha256_file(Path(inputs["audit"]) / "verdict.json"),
        "notes": sha256_file(tmp_path / "notes.txt"),
    }
    assert verdict["outputs"] == {"count.txt": sha256_file(tmp_path / "out" / "count.txt")}
    assert "count: passed" in capsys.readouterr().err


def test_a_no_is_written_and_with_enforce_also_raised(inputs, tmp_path):
    out = tmp_path / "out"
    assert not execute(COUNT, CountSettings(limit=1), inputs, str(out)).passed
    before = sha256_tree(out)
    with pytest.raises(GateRefused, match=r"count says no: count\.any: too many: count again; see .*json") as no:
        execute(COUNT, CountSettings(limit=1), inputs, str(out), enforce=True)
    assert no.value.exit_code == 3 and sha256_tree(out) == before
    execute(COUNT, CountSettings(limit=0), inputs, str(out), enforce=True)


def test_an_input_that_did_not_pass_is_refused_before_anything_runs(tiny_data, tmp_path):
    strict = SETTINGS.model_copy(update={"max_missing_tags_share": 0.0})
    execute(AUDIT, strict, {"data": str(tiny_data)}, str(tmp_path / "audit"))
    inputs = {"data": str(tiny_data), "audit": str(tmp_path / "audit")}
    with pytest.raises(GateRefused, match=r"audit says no: tags\.missing: 1 of 6 tags") as no:
        execute(COUNT, CountSettings(), inputs, str(tmp_path / "out"))
    assert no.value.exit_code == 3 and not (tmp_path / "out").exists()
    ungated = Stage("count", "count", (INPUTS[0], Input("audit", "", gated=False)), COUNT.run)
    execute(ungated, CountSettings(), inputs, str(tmp_path / "out"))


def test_inputs_made_from_different_things_are_refused_with_both_named(inputs, pack_records, records, tmp_path):
    other = pack_records(records[:12])
    with pytest.raises(UserError) as refused:
        execute(COUNT, CountSettings(), inputs | {"data": str(other)}, str(tmp_path / "out"))
    line = str(refused.value)
    assert "count: inputs do not belong together" in line
    assert "audit was made from data" in line and "the data given is" in line
    for data in (other, Path(inputs["data"])):
        assert sha256_file(data / "dataset.json")[:19] in line
    assert not (tmp_path / "out").exists()


def test_an_input_of_another_maker_is_refused(inputs, tmp_path):
    made_by = Stage("count", "count", (INPUTS[0], Input("audit", "", made_by=("embed",))), COUNT.run)
    with pytest.raises(UserError, match=r"--audit .* is the output of audit, not of embed: give the right directory"):
        execute(made_by, CountSettings(), inputs, str(tmp_path / "out"))


def test_an_earlier_version_need_not_belong_to_the_other_inputs(inputs, pack_records, records, tmp_path):
    execute(AUDIT, SETTINGS, {"data": str(pack_records(records[:12]))}, str(tmp_path / "before"))
    both = Stage("count", "count", (*INPUTS, Input("notes", "", related=False)), COUNT.run)
    given = inputs | {"notes": str(tmp_path / "before")}
    assert execute(both, CountSettings(), given, str(tmp_path / "out")).inputs["notes"] == sha256_file(
        tmp_path / "before" / "verdict.json"
    )
    with pytest.raises(UserError, match="do not belong together"):
        execute(COUNT, CountSettings(), given, str(tmp_path / "out"))


def test_two_inputs_that_disagree_about_a_third_are_refused(inputs, pack_records, records, tmp_path):
    other = pack_records(records[:12])
    execute(AUDIT, SETTINGS, {"data": str(other)}, str(tmp_path / "audit"))
    pair = Stage("pair", "pair", (Input("one", ""), Input("two", "")), "tests.test_stage:count")
    with pytest.raises(UserError, match=r"two was made from data .*, the data that one was made from is "):
        execute(pair, CountSettings(), {"one": inputs["audit"], "two": str(tmp_path / "audit")}, str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.write_bytes(p.read_bytes() + b" "), r"quarantine\.parquet is not what audit wrote"),
        (lambda p: p.unlink(), r"quarantine\.parquet is gone: run audit again"),
    ],
)
def test_an_altered_artifact_is_named(inputs, copy_of, tmp_path, damage, says):
    audit = copy_of(Path(inputs["audit"]))
    damage(audit / "quarantine.parquet")
    with pytest.raises(UserError, match=says):
        execute(COUNT, CountSettings(), inputs | {"audit": str(audit)}, str(tmp_path / "out"))


def test_an_altered_description_of_the_data_is_named(tiny_data, copy_of, tmp_path):
    data = copy_of(tiny_data)
    text = (data / "dataset.json").read_text().replace('"samples": 24', '"samples": 23')
    (data / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"dataset\.json is not what pack wrote"):
        execute(AUDIT, SETTINGS, {"data": str(data)}, str(tmp_path / "out"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"passed": true, "checks": 3}', '{"stage": "audit", "no": 1}'])
def test_a_damaged_verdict_is_one_line(inputs, copy_of, tmp_path, content):
    audit = copy_of(Path(inputs["audit"]))
    (audit / "verdict.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"verdict\.json is not a verdict of this version of ramflow"):
        execute(COUNT, CountSettings(), inputs | {"audit": str(audit)}, str(tmp_path / "out"))


def test_the_output_is_replaced_whole(inputs, tmp_path):
    out = tmp_path / "out"
    execute(COUNT, CountSettings(), inputs, str(out))
    (out / "left-over.txt").touch()
    execute(COUNT, CountSettings(), inputs, str(out))
    assert sorted(p.name for p in out.iterdir()) == ["count.txt", "verdict.json"]


def test_a_failure_keeps_the_old_output_and_leaves_nothing_else(inputs, tmp_path):
    out = tmp_path / "out"
    execute(COUNT, CountSettings(), inputs, str(out))
    before = sha256_tree(tmp_path)
    with pytest.raises(ZeroDivisionError):
        execute(COUNT, CountSettings(fail=True), inputs, str(out))
    assert sha256_tree(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_peoples_directories_are_refused(inputs, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        execute(COUNT, CountSettings(), inputs, str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["data", "audit"])
def test_the_output_of_another_stage_is_never_replaced(inputs, copy_of, name):
    """``--out`` that names an input by mistake must not cost the dataset."""
    place = copy_of(Path(inputs[name]))
    before = sha256_tree(place)
    maker = {"data": "pack", "audit": "audit"}[name]
    with pytest.raises(UserError, match=f"holds the output of {maker}: give an empty or new directory for count"):
        execute(COUNT, CountSettings(), inputs | {name: str(place)}, str(place))
    assert sha256_tree(place) == before


def test_the_same_inputs_and_settings_give_the_same_bytes(inputs, copy_of, tiny_data, tmp_path):
    execute(AUDIT, SETTINGS, {"data": str(tiny_data)}, str(tmp_path / "one"))
    execute(AUDIT, SETTINGS, {"data": str(copy_of(tiny_data))}, str(tmp_path / "elsewhere" / "two"))
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "elsewhere" / "two") == sha256_tree(
        Path(inputs["audit"])
    )


def test_from_s3_to_s3_as_on_a_disk(bucket, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CACHE", tmp_path / "cache")
    for name, path in inputs.items():
        storage.publish(Path(path), f"s3://{bucket}/{name}", last="verdict.json")
    there = {name: f"s3://{bucket}/{name}" for name in inputs}
    execute(COUNT, CountSettings(), there, f"s3://{bucket}/out")
    execute(COUNT, CountSettings(), inputs, str(tmp_path / "out"))
    assert sha256_tree(storage.fetch(f"s3://{bucket}/out", tmp_path / "back")) == sha256_tree(tmp_path / "out")
