"""What S3 may do to a transfer: retried, then named in one line. A real endpoint behind a proxy that fails as told."""

from __future__ import annotations

import os
from io import BytesIO

import pytest

from ramflow.errors import NoSuchObject, UserError
from ramflow.s3 import Store

CONTENT = bytes(range(256)) * 20
TRANSIENT = ["500 InternalError", "503 SlowDown", "refuse", "silent", "trickle", "cut", "flip"]


@pytest.fixture
def stored(bucket, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    Store().put(tmp_path / "file", bucket, "runs/file")
    return bucket


def get(bucket, key="runs/file"):
    file = BytesIO()
    Store().get(bucket, key, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_fault_that_passes_is_retried(stored, faults, kind):
    faults.fail(kind, times=2 if kind == "cut" else 1)
    assert get(stored) == CONTENT
    assert len(faults.requests) >= (3 if kind == "cut" else 2)


@pytest.mark.parametrize(
    ("kind", "attempts", "says"),
    [
        ("500 InternalError", 2, r"the store failed, try later \(500 InternalError, 2 times\)"),
        ("503 SlowDown", 2, r"the store asks to slow down: .* \(503 SlowDown, 2 times\)"),
        ("refuse", 2, r"the store broke off the connection \(connection reset by peer\)"),
        ("silent", 2, r"timeout: the store does not answer"),
        ("trickle", 2, r"too slow \(less than 4 MiB in 1 s\), 2 times"),
        ("cut", 2, r"the answer is cut short \(2560 read, but total bytes expected is 5120\), 2 times"),
        ("flip", 2, r"wrong checksum \(.*\), 2 times"),
        ("403 AccessDenied", 1, r"access denied: these credentials have no right to this \(403 AccessDenied\)"),
        ("400 ExpiredToken", 1, r"the credentials have expired: get new ones \(400 ExpiredToken\)"),
        ("403 SignatureDoesNotMatch", 1, r"wrong credentials: check the secret key \(403 SignatureDoesNotMatch\)"),
        ("404 NoSuchBucket", 1, r"there is no such bucket \(404 NoSuchBucket\)"),
        ("404 NoSuchKey", 1, r"there is no such object \(404 NoSuchKey\)"),
        ("418 Teapot", 1, r"as the test wants \(418 Teapot\)"),
    ],
)
def test_a_fault_that_stays_is_one_line(stored, faults, monkeypatch, kind, attempts, says):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    faults.fail(kind)
    with pytest.raises(UserError, match=f"^s3://{stored}/runs/file: {says}$"):
        get(stored)
    assert len(faults.requests) == attempts


@pytest.mark.parametrize("kind", ["500 InternalError", "refuse"])
def test_an_upload_is_retried_then_named(bucket, faults, tmp_path, monkeypatch, kind):
    (tmp_path / "file").write_bytes(CONTENT)
    faults.fail(kind, times=1, method="PUT")
    Store().put(tmp_path / "file", bucket, "file")
    assert get(bucket, "file") == CONTENT
    faults.fail(kind, method="PUT")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(UserError, match=r"^s3://.*/file: the store (failed, try later|broke off the connection) \("):
        Store().put(tmp_path / "file", bucket, "file")


def test_an_upload_that_was_damaged_on_the_way_is_found_when_it_is_read(bucket, faults, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    (tmp_path / "file").write_bytes(CONTENT)
    faults.fail("flip-sent", times=1, method="PUT")
    Store().put(tmp_path / "file", bucket, "file")
    with pytest.raises(UserError, match=r"^s3://.*/file: wrong checksum"):
        get(bucket, "file")


def test_an_upload_in_parts_comes_back_and_its_checksum_is_known(bucket, faults, tmp_path):
    content = os.urandom(9 << 20)
    (tmp_path / "file").write_bytes(content)
    Store().put(tmp_path / "file", bucket, "file")
    assert faults.count("partNumber", "PUT") == 2 and get(bucket, "file") == content
    faults.fail("flip", times=1)
    faults.requests.clear()
    assert get(bucket, "file") == content and len(faults.requests) == 2


def test_listing_is_retried_then_named(stored, faults):
    faults.fail("503 SlowDown", times=1)
    assert list(Store().objects(stored, "runs/")) == [("runs/file", len(CONTENT))]
    faults.fail("403 AccessDenied")
    with pytest.raises(UserError, match=rf"^s3://{stored}/runs/: access denied"):
        list(Store().objects(stored, "runs/"))


def test_an_object_that_is_not_there_can_be_told_apart(bucket):
    with pytest.raises(NoSuchObject, match="there is no such object"):
        get(bucket, "nothing")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1", r"no connection to http://127\.0\.0\.1:1 \(connection refused\)"),
        ("AWS_ENDPOINT_URL_S3", "nonsense", r"the settings for S3 .*Invalid endpoint: nonsense"),
        ("AWS_MAX_ATTEMPTS", "many", r"the settings for S3 .*'many'"),
        ("AWS_PROFILE", "nobody", r"the settings for S3 .*profile \(nobody\) could not be found"),
        ("RAMFLOW_S3_TIMEOUT", "0", r"^RAMFLOW_S3_TIMEOUT=0: a number of seconds above 0"),
        ("AWS_ACCESS_KEY_ID", "", r"no credentials for S3: set AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_settings_are_one_line(bucket, monkeypatch, name, value, says):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says) as error:
        get(bucket)
    assert "\n" not in str(error.value)
