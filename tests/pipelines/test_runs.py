"""`dvc repro` and the compiled pipeline run for real: the same bytes, a true lock, and failures that show."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from ramflow.storage import sha256_tree
from tests.components.small import PARAMS, ROOT, needs_models, write_descriptions
from tests.conftest import all_records

pytestmark = pytest.mark.xdist_group("pipelines")


def local(run_in, place, *arguments):
    return run_in(place, sys.executable, "-m", "pipelines.local", *arguments)


@pytest.mark.skipif(not (ROOT / "dvc.lock").is_file(), reason="dvc.lock is not here: make demo")
def test_the_lock_is_true(working_copy, run_in):
    done = run_in(working_copy, "dvc", "repro", "--dry", "--allow-missing")
    true = done.returncode == 0 and "Running stage" not in done.stdout
    assert true, f"code, parameters or data have changed: make demo, commit dvc.lock\n{done.stdout}{done.stderr}"


@needs_models
def test_dvc_and_the_pipeline_make_the_same_bytes(working_copy, run_in, tiny_data, tmp_path):
    place = tmp_path / "ramflow"
    shutil.copytree(working_copy, place)
    for name in ("data.dvc", "dvc.lock"):
        (place / name).unlink(missing_ok=True)
    shutil.copytree(tiny_data, place / "data")
    (place / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    write_descriptions(place / "sample" / "descriptions.json")

    for command in (["dvc", "repro"], [sys.executable, "-m", "pipelines.pipeline"]):
        done = run_in(place, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = local(run_in, place, "shards_per_task=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("audit-part: passed") == 3, "the audit was not cut into parts"
    assert "mAP" in done.stdout
    assert "report.html" in done.stdout

    made = sha256_tree(place / "runs" / "demo")
    by_dvc = {name: digest for name, digest in made.items() if ".logs/" not in name}  # they hold times
    outputs = {"report.html" if stage == "report" else stage for stage in (*PARAMS, "scratch")}
    assert {name.partition("/")[0] for name in by_dvc} == outputs
    assert sha256_tree(place / "runs" / "local") == by_dvc

    done = run_in(place, "dvc", "repro")
    assert "Running stage" not in done.stdout


@pytest.fixture
def bad_data(pack_records, tmp_path):
    """A packed set in which every second picture is cut off."""
    records = all_records()
    for number, record in enumerate(records):
        path = tmp_path / record["image_path"]
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(path)
        if number % 2:
            path.write_bytes(path.read_bytes()[:-200])
    return pack_records(records[:12], records[12:18], records[18:], images=tmp_path)


def test_a_stage_that_fails_stops_the_pipeline(run_in, bad_data, tmp_path):
    done = local(run_in, ROOT, "--out", str(tmp_path / "out"), f"data={bad_data}")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "pipeline-local: stage audit failed with exit code 3; the stages after it were not run"
    )
    assert "audit says no" in done.stderr
    assert "Executing task" in done.stdout
    assert "embed" not in done.stdout
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")] == ["audit"]
    assert json.loads((tmp_path / "out" / "audit" / "verdict.json").read_text())["passed"] is False


def test_a_part_that_fails_stops_the_pipeline(run_in, tiny_data, copy_of, tmp_path):
    data = copy_of(tiny_data)
    shard = data / json.loads((data / "dataset.json").read_text())["shards"][2]["name"]
    shard.unlink()
    done = local(run_in, ROOT, "--out", str(tmp_path / "out"), f"data={data}", "shards_per_task=2")
    assert done.returncode == 2
    *_, reason, last = done.stderr.splitlines()
    assert reason.startswith(f"ramflow: {shard} is gone")
    assert last == (
        "pipeline-local: stage audit of shards 2:4 failed with exit code 2; the stages after it were not run"
    )
    assert done.stderr.count("audit-part: passed") == 1
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("epochs=3", "epochs is not a parameter of the pipeline"),
        ("shards_per_task=few", "shards_per_task=few: a whole number is expected"),
    ],
)
def test_a_parameter_that_cannot_be_is_one_line(run_in, tmp_path, argument, message):
    done = local(run_in, ROOT, "--out", str(tmp_path / "out"), argument)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_after_ctrl_c_a_stage_ends_in_its_own_time(environment, tmp_path):
    stage = (
        "import pathlib, sys, time\n"
        "try:\n    print('started', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5); pathlib.Path(sys.argv[1]).write_text('saved'); sys.exit(130)\n"
    )
    runner = (
        "import sys\nfrom pipelines.host import HostProcess, StageFailed\n"
        "try:\n    HostProcess('', sys.argv[1:], '', None).run()\n"
        "except StageFailed as error:\n    sys.exit(error.code)\n"
    )
    command = [sys.executable, "-c", runner, sys.executable, "-c", stage, str(tmp_path / "checkpoint")]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert (tmp_path / "checkpoint").read_text() == "saved"
