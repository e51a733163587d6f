"""The command line: exit codes, and every error in one line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest
from polars.exceptions import ComputeError

from ramflow import __version__, cli
from ramflow.cli import main
from ramflow.stages import STAGES


@pytest.fixture
def ramflow(capsys):
    """``ramflow(word, ...)``: exit code and the lines of standard error, whichever way the command ends."""

    def run(*words: object) -> tuple[int, list[str]]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err.splitlines()

    return run


LIMITS = ("--set", "audit.max_missing_tags_share=0.2", "--set", "audit.workers=1")


def test_zero_when_done_although_the_verdict_is_a_no(ramflow, tiny_data, tmp_path):
    code, lines = ramflow("audit", "--data", tiny_data, "--out", tmp_path / "audit", "--set", "audit.workers=1")
    assert code == 0 and lines[-1].startswith("audit: NOT PASSED; images 24") and "tags.missing" in lines[0]
    assert json.loads((tmp_path / "audit" / "verdict.json").read_text())["passed"] is False


def test_three_when_a_gate_is_enforced_and_says_no(ramflow, tiny_data, tmp_path):
    words = ("audit", "--data", tiny_data, "--out", tmp_path / "audit", "--enforce", "--set", "audit.workers=1")
    code, lines = ramflow(*words)
    assert code == 3 and lines[-1].startswith("ramflow: audit says no: tags.missing: 1 of 6 tags")
    assert (tmp_path / "audit" / "verdict.json").is_file()
    assert ramflow(*words, *LIMITS)[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["audit"], "required: --out"),
        (["audit", "--data", "gone", "--out", "out", "--fast"], "unrecognized arguments: --fast"),
        (["audit", "--data", "gone", "--out", "out"], "no such file or directory: gone"),
        (["audit", "--data", ".", "--out", "out"], "is not a packed dataset"),
        (["audit", "--data", ".", "--out", "out", "--params", "gone.yaml"], "no such params file: gone.yaml"),
        (["audit", "--data", ".", "--out", "out", "--set", "audit.rare=1"], "unknown key audit.rare"),
        (["audit", "--data", ".", "--out", "out", "--set", "train.learning_rate=1e-4"], "train.learning_rate: '1e-4'"),
        (["audit", "--data", ".", "--out", "s3://bucket", *LIMITS], "s3://bucket is not s3://BUCKET/PREFIX"),
        (["pack", "--annotations", "a", "--images", ".", "--tags", "t", "--out", "o", "--shard-mb", "x"], "invalid"),
        (["settings", "--params", "gone.yaml"], "no such params file"),
    ],
)
def test_two_and_one_line_when_the_user_can_mend_it(ramflow, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, lines = ramflow(*words)
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith("ramflow") and says in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(ramflow, tiny_data, tmp_path):
    (tmp_path / "file").touch()
    code, lines = ramflow("audit", "--data", tiny_data, "--out", tmp_path / "file" / "audit", *LIMITS)
    assert code == 2 and len(lines) == 1 and "Not a directory" in lines[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/file"), 2),
        (OSError(errno.EACCES, "Permission denied", "/disk/file"), 2),
        (ComputeError("parquet: underlying IO error: No space left on device (os error 28)"), 2),
        (OSError(errno.EIO, "Input/output error", "/disk/file"), None),
        (ComputeError("some other os error 28 of the text"), None),
        (ValueError("a bug"), None),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_the_system_refuses_is_one_line_and_a_bug_keeps_its_traceback(ramflow, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "_print_section", fail)
    if code is None:
        with pytest.raises(type(error)):
            ramflow("settings")
    else:
        got, lines = ramflow("settings")
        assert got == code and len(lines) == 1 and lines[0].startswith("ramflow: ")


def test_settings_lists_every_parameter_and_the_values_of_a_file(capsys, tmp_path):
    (tmp_path / "p.yaml").write_text("train: {batch: 17}", encoding="utf-8")
    assert main(["settings", "--params", str(tmp_path / "p.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("train.batch = 17    ") for line in lines)
    assert any(line.startswith("train.augment.min_scale = 0.2    ") for line in lines)


def test_params_as_an_object(ramflow, tiny_data, tmp_path):
    """That is how a pipeline passes them; sections of other stages are read and checked as well."""
    audit = {"max_missing_tags_share": 0.2, "workers": 1, "rare_below": 2}
    params = json.dumps({"audit": audit, "train": {"batch": 4}})
    code, _ = ramflow("audit", "--data", tiny_data, "--out", tmp_path / "out", "--params", params, "--enforce")
    assert code == 0
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["settings"]["rare_below"] == 2


def test_the_launcher_of_a_pipeline_is_told_the_outputs(ramflow, tiny_data, tmp_path):
    artifact = {"artifacts": [{"name": "out", "uri": "minio://x/out"}]}
    executor_input = {"outputs": {"artifacts": {"out": artifact}, "outputFile": str(tmp_path / "kfp" / "output.json")}}
    words = ("audit", "--data", tiny_data, "--out", tmp_path / "out", *LIMITS)
    assert ramflow(*words, "--executor-input", json.dumps(executor_input))[0] == 0
    assert json.loads((tmp_path / "kfp" / "output.json").read_text()) == {"artifacts": {"out": artifact}}


def test_help_has_a_line_for_every_stage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for name in ("pack", *(stage.name for stage in STAGES), "report", "settings"):
        assert f"\n    {name} " in text


def test_as_a_program_and_into_a_closed_pipe():
    command = [sys.executable, "-m", "ramflow.cli"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"ramflow {__version__}\n"
    script = f"{sys.executable} -m ramflow.cli settings | head -1"
    assert subprocess.run(script, shell=True, capture_output=True, text=True).stderr == ""


def test_the_command_line_starts_without_heavy_libraries():
    """The data image has no torch, and ``--help`` should not wait for it."""
    code = "import sys, ramflow.cli; print({'torch', 'timm', 'transformers', 'kfp', 'dvc'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
