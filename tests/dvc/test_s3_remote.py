"""A packed set added to real DVC, pushed to a real S3 endpoint on loopback, and pulled in a clone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from ramflow.data.dataset import Dataset
from ramflow.storage import sha256_tree

SCRIPTS = Path(sys.executable).parent
KEY, SECRET = "testkey", "testsecret"
TABLES = {"manifest.parquet", "index.safetensors", "missing.parquet", "tags.csv", "dataset.json", "verdict.json"}


@pytest.fixture
def endpoint(tmp_path):
    """``rclone serve s3`` over a folder; unlike moto it checks who asks."""
    (tmp_path / "store").mkdir()
    command = [str(SCRIPTS / "rclone"), "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}", "-v"]
    environment = os.environ | {"HOME": str(tmp_path)}
    with subprocess.Popen([*command, str(tmp_path / "store")], stderr=subprocess.PIPE, text=True, env=environment) as p:
        for line in p.stderr:
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        yield address[0]
        p.terminate()


@pytest.fixture
def environment(endpoint, tmp_path, monkeypatch):
    """Nothing of this machine's configuration; S3 leads to the endpoint."""
    given = {
        "HOME": tmp_path / "home", "DVC_SITE_CACHE_DIR": tmp_path / "site", "DVC_NO_ANALYTICS": 1,
        "AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "home").mkdir()
    boto3.Session().client("s3").create_bucket(Bucket="team-bucket")


def run(directory, *command):
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)


def dvc(directory, *words):
    run(directory, sys.executable, "-m", "dvc", *words, "--quiet")


def test_a_set_is_pushed_and_pulled_by_shards_and_tables(environment, tiny_data, copy_of, tmp_path):
    repository, clone = tmp_path / "repository", tmp_path / "clone"
    repository.mkdir()
    run(repository, "git", "init", "--quiet")
    dvc(repository, "init")
    copy_of(tiny_data).rename(repository / "data")
    dvc(repository, "add", "data")
    dvc(repository, "remote", "add", "--default", "s3", "s3://team-bucket/dvc")
    dvc(repository, "push")
    run(repository, "git", "add", "--all")
    run(repository, "git", "commit", "--quiet", "--message", "the set")

    names = {p.name for p in tiny_data.iterdir()}
    assert len([n for n in names if n.endswith(".tar")]) > 3
    assert {n for n in names if not n.endswith(".tar")} == TABLES
    (listing,) = (repository / ".dvc" / "cache").rglob("*.dir")
    assert {entry["relpath"] for entry in json.loads(listing.read_text())} == names
    pinned = (repository / "data.dvc").read_text()
    assert f"nfiles: {len(names)}\n" in pinned and len(pinned.splitlines()) == 6

    objects = boto3.Session().client("s3").list_objects_v2(Bucket="team-bucket")["Contents"]
    contents = {digest for name, digest in sha256_tree(tiny_data).items()}
    assert len(objects) == len(contents) + 1  # by content, and the listing

    run(tmp_path, "git", "clone", "--quiet", str(repository), str(clone))
    dvc(clone, "pull")
    assert sha256_tree(clone / "data") == sha256_tree(tiny_data)
    mine, theirs = Dataset(tiny_data), Dataset(clone / "data")
    assert [theirs.image(n) for n in range(len(theirs))] == [mine.image(n) for n in range(len(mine))]
