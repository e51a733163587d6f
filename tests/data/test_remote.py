"""A packed dataset in S3: its tables come here, verified, and only what differs comes again."""

import json

import boto3
import pytest

from ramflow import storage
from ramflow.data.remote import fetch_dataset_tables
from ramflow.errors import UserError


def names(directory):
    return sorted(path.name for path in directory.iterdir())


TABLES = {"manifest.parquet": b"rows" * 999, "index.safetensors": b"numbers", "tags.csv": b"id,name"}
SHARDS = {"train-00000.tar": b"images", "train-00001.tar": b"more images"}


@pytest.fixture
def remote_set(bucket):
    """A packed dataset below ``s3://BUCKET/sets/one``, put there by another tool than ramflow."""
    client = boto3.client("s3")

    def put(name, content):
        client.put_object(Bucket=bucket, Key=f"sets/one/{name}", Body=content)

    for name, content in (TABLES | SHARDS).items():
        put(name, content)
    files = {name: storage.sha256_bytes(content) for name, content in (TABLES | SHARDS).items()}
    put("dataset.json", json.dumps({"files": files}))
    put("verdict.json", "{}")
    return f"s3://{bucket}/sets/one", put


def test_only_the_tables_of_a_dataset_are_brought_here(remote_set, faults, tmp_path):
    address, _ = remote_set
    old = tmp_path / "cache" / address.removeprefix("s3://") / "train-00000.tar"
    old.parent.mkdir(parents=True)
    old.touch()
    local = fetch_dataset_tables(address + "/", tmp_path / "cache")
    assert names(local) == sorted(["dataset.json", "shards.json", "verdict.json", *TABLES])
    assert {name: (local / name).read_bytes() for name in TABLES} == TABLES
    assert json.loads((local / "shards.json").read_text()) == {"address": address}
    assert faults.count("list-type") == 0 and faults.count(".tar") == 0


def test_only_what_differs_is_fetched_again(remote_set, faults, tmp_path):
    address, put = remote_set
    local = fetch_dataset_tables(address, tmp_path / "cache")
    (local / "tags.csv").write_bytes(b"damaged")
    faults.requests.clear()
    assert fetch_dataset_tables(address, tmp_path / "cache") == local
    assert sorted(path.split("/")[-1] for _, path in faults.requests) == ["dataset.json", "tags.csv", "verdict.json"]
    put("dataset.json", json.dumps({"files": {"tags.csv": storage.sha256_bytes(b"new")}}))
    put("tags.csv", b"new")
    boto3.client("s3").delete_object(Bucket=address.split("/")[2], Key="sets/one/verdict.json")
    fetch_dataset_tables(address, tmp_path / "cache")
    assert names(local) == ["dataset.json", "shards.json", "tags.csv"] and (local / "tags.csv").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tags.csv", b"of another set", r"/sets/one/tags\.csv: wrong checksum \(sha256 .* instead of .*\), 2 times"),
        ("dataset.json", b"{", r"/sets/one/dataset\.json is damaged: pack the dataset again"),
        ("dataset.json", b'{"files": {"../../x": "sha256:0"}}', r"/sets/one/dataset\.json is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_remote_dataset_is_one_line(remote_set, tmp_path, monkeypatch, name, content, says):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    address, put = remote_set
    put(name, content)
    with pytest.raises(UserError, match=f"^s3://.*{says}"):
        fetch_dataset_tables(address, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(f"*{storage.PARTIAL}"))


def test_an_address_without_a_dataset_is_one_line(bucket, tmp_path):
    with pytest.raises(UserError, match=r"^s3://.*/nothing is not a packed dataset: it has no dataset\.json$"):
        fetch_dataset_tables(f"s3://{bucket}/nothing", tmp_path / "cache")
