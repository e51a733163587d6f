"""Checkpoints in S3, whatever the store does. A real endpoint behind a proxy that fails as told."""

from __future__ import annotations

import shutil
import time

import boto3
import pytest

from ramflow.errors import UserError
from ramflow.storage import sha256_tree
from ramflow.train.checkpoint import Checkpoints
from tests.train.checkpoint_runs import flip, loaded, names, saved
from tests.train.saving import save


@pytest.fixture
def remote(bucket):
    return f"s3://{bucket}/runs/abc"


def objects(bucket):
    return [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_a_new_machine_goes_on_from_s3(folder, log, remote, bucket, tmp_path):
    saved(folder, log, range(1, 6), remote=remote)
    assert loaded(tmp_path / "new", remote) == (5, [])
    assert sha256_tree(tmp_path / "new" / "step-00000005") == sha256_tree(folder / "step-00000005")
    assert {key.split("/")[2] for key in objects(bucket)} == {
        "best-00000003.safetensors", "step-00000004", "step-00000005"
    }  # fmt: skip


def test_the_newer_of_folder_and_s3_is_taken(folder, log, remote, tmp_path):
    saved(folder, log, [1, 2], remote=remote)
    shutil.copytree(folder, tmp_path / "old")
    saved(folder, log, [3], remote=remote)
    assert loaded(tmp_path / "old", remote) == (3, [])
    saved(folder, log, [4])
    assert loaded(folder, remote) == (4, [])


def test_a_damaged_one_is_mended_from_s3(folder, log, remote):
    saved(folder, log, [1, 2, 3], remote=remote)
    flip(folder / "step-00000003" / "model.safetensors")
    assert loaded(folder, remote) == (3, [])
    flip(folder / "best-00000003.safetensors")
    assert loaded(folder, remote) == (3, [])
    assert loaded(folder) == (3, [])


def test_a_damaged_one_in_s3_is_passed_over(folder, log, remote, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    saved(folder, log, range(1, 5), remote=remote, keep=3)
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="runs/abc/step-00000004/optimizer.safetensors", Body=b"other")
    client.delete_object(Bucket=bucket, Key="runs/abc/step-00000003/model.safetensors")
    step, failures = loaded(tmp_path / "older", remote)
    assert step == 2 and failures[0].startswith("checkpoint of step 4 not brought from S3: s3://")
    assert "wrong checksum" in failures[0] and "there is no such object" in failures[2]


def test_where_nothing_can_be_had_from_s3_a_run_does_not_begin_anew(
    folder, log, remote, bucket, tmp_path, monkeypatch, faults
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    saved(folder, log, [1], remote=remote)
    faults.fail("500 InternalError", part="model")
    checkpoints = Checkpoints(tmp_path / "new", 2, remote)
    with pytest.raises(UserError, match=r"no whole checkpoint in .*, and s3://.*the store failed"):
        checkpoints.load()
    assert names(tmp_path / "new") == []
    faults.fail("403 AccessDenied", part="prefix=")
    with pytest.raises(UserError, match=r"no whole checkpoint in .*, and s3://.*access denied"):
        checkpoints.load()


def test_requests_beside_the_uploads_are_few(folder, log, remote, faults):
    checkpoints = saved(folder, log, [1, 2, 3, 4], remote=remote)
    faults.requests.clear()
    save(checkpoints, 5, log)
    checkpoints.wait()
    assert [m for m, _ in faults.requests] == ["PUT"] * 4 + ["POST"]
    assert faults.requests[3][1].endswith("state.json") and "delete" in faults.requests[4][1]


def test_what_is_there_is_not_sent_again(folder, log, remote, faults):
    saved(folder, log, [1, 2, 3], remote=remote)
    faults.requests.clear()
    saved(folder, log, [4], remote=remote)
    assert faults.count("step-00000003", "PUT") == faults.count("best", "PUT") == 0
    assert faults.count("step-00000004", "PUT") == 4


S3_FAULTS = [
    ("500 InternalError", "PUT", "optimizer", "the store failed"),
    ("503 SlowDown", "PUT", "model", "the store asks to slow down"),
    ("refuse", "PUT", "optimizer", "the store broke off the connection"),
    ("silent", "PUT", "model", "timeout: the store does not answer"),
    ("403 AccessDenied", "PUT", "state.json", "access denied"),
    ("400 ExpiredToken", "PUT", "state.json", "the credentials have expired"),
    ("403 QuotaExceeded", "PUT", "metrics", "the quota is used up"),
    ("403 AccessDenied", "POST", "delete", "access denied"),
]


@pytest.mark.parametrize(("kind", "method", "part", "says"), S3_FAULTS)
def test_an_error_of_s3_is_a_line_and_the_next_save_makes_up_for_it(
    folder, log, remote, faults, monkeypatch, tmp_path, kind, method, part, says
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    checkpoints = saved(folder, log, [1, 2, 3], remote=remote)
    faults.fail(kind, times=1, method=method, part=part)
    save(checkpoints, 4, log)
    checkpoints.wait()
    (line,) = checkpoints.failures()
    assert line.startswith("checkpoint of step 4 not copied: s3://") or method == "POST"
    assert says in line and line.endswith("; the next save tries again") and "\n" not in line
    assert loaded(folder) == (4, [])
    assert loaded(tmp_path / "before", remote)[0] == (4 if method == "POST" else 3)
    save(checkpoints, 5, log)
    checkpoints.wait()
    assert checkpoints.failures() == []
    assert sorted(checkpoints._mirror.steps()) == [4, 5]
    assert loaded(tmp_path / "after", remote) == (5, [])


def test_s3_that_is_away_for_long_never_stops_a_run(folder, log, remote, faults, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    saved(folder, log, [1], remote=remote)
    faults.fail("refuse")
    faults.fail("refuse", method="PUT")
    checkpoints = saved(folder, log, range(2, 9), remote=remote)
    assert len(checkpoints.failures()) == 8 and loaded(folder, remote)[0] == 8
    with pytest.raises(UserError, match=r"no whole checkpoint in .* and s3://.*broke off the connection"):
        Checkpoints(tmp_path / "new", 2, remote).load()


def test_a_slow_store_does_not_delay_the_next_save(folder, log, remote, faults):
    """Those between are passed over: the newest goes first."""
    faults.before_body = lambda: time.sleep(0.3)
    checkpoints = Checkpoints(folder, 1, remote)
    start = time.monotonic()
    for step in range(1, 6):
        save(checkpoints, step, log)
    assert checkpoints.wait(0.01) is False
    assert time.monotonic() - start < 1.5
    faults.before_body = lambda: None
    assert checkpoints.wait() is True
    assert checkpoints._mirror.steps() == [5] and faults.count("step-00000004/state.json", "PUT") == 0


def test_what_killed_uploads_left_goes_at_the_next_save(folder, log, remote, bucket, tmp_path):
    client = boto3.client("s3")
    for step in (7, 9):
        client.put_object(Bucket=bucket, Key=f"runs/abc/step-{step:08d}/model.safetensors", Body=b"half")
    client.create_multipart_upload(Bucket=bucket, Key="runs/abc/step-00000007/optimizer.safetensors")
    client.put_object(Bucket=bucket, Key="runs/abcd/step-00000001/model.safetensors", Body=b"of another run")
    assert Checkpoints(folder, 2, remote).load() is None
    saved(folder, log, [1], remote=remote)
    assert {key.rsplit("/", 1)[0] for key in objects(bucket)} == {"runs/abc/step-00000001", "runs/abcd/step-00000001"}
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_another_course_of_the_run_replaces_a_step_whole(folder, log, remote, tmp_path):
    saved(tmp_path / "a", tmp_path / "a.log", [1, 2], remote=remote)
    log.write_text("another course\n")
    checkpoints = Checkpoints(folder, 2, remote)
    save(checkpoints, 2, log)
    checkpoints.wait()
    found = Checkpoints(tmp_path / "new", 2, remote).load()
    assert found.logs["metrics.jsonl"].read_text() == "another course\n2\n"


def test_a_store_that_knows_no_conditions_does_too(folder, log, remote, faults, tmp_path):
    faults.fail("501 NotImplemented", times=1, method="PUT", part="state.json")
    assert saved(folder, log, [1], remote=remote).failures() == []
    assert loaded(tmp_path / "new", remote) == (1, []) and faults.count("state.json", "PUT") == 2


def test_the_state_that_vouches_is_never_written_over(folder, log, remote, bucket):
    checkpoints = saved(folder, log, [1], remote=remote)
    boto3.client("s3").put_object(Bucket=bucket, Key="runs/abc/step-00000002/state.json", Body=b"of another process")
    save(checkpoints, 2, log)
    checkpoints.wait()
    (line,) = checkpoints.failures()
    assert "another process has written it meanwhile (412 PreconditionFailed)" in line


def test_damage_on_this_disk_is_not_copied(folder, log, remote):
    saved(folder, log, [1, 2], keep=3)
    flip(folder / "step-00000001" / "model.safetensors")
    checkpoints = saved(folder, log, [3], keep=3, remote=remote)
    (line,) = checkpoints.failures()
    assert line.startswith("checkpoint of step 1: model.safetensors has other bytes")
    assert Checkpoints(folder, 3, remote)._mirror.steps() == [3, 2]
