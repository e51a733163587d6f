"""A packed dataset in S3: its tables are fetched, its shards stay where they are until one is needed."""

from __future__ import annotations

import json
from pathlib import Path

from ramflow import verdict
from ramflow.data.dataset import DATASET_FILE, SHARDS_FILE
from ramflow.errors import NoSuchObject, UserError
from ramflow.locks import locked
from ramflow.storage import download, lock_of, remove_others, sha256_file, split_address, whole_file


def fetch_dataset_tables(address: str, cache: Path) -> Path:
    """A local folder with all of a packed dataset but its shards, which stay where its ``shards.json`` says.

    A file that is there already, with the digest that ``dataset.json`` lists, is not fetched again.

    Raises:
        UserError: no packed dataset is there, or the store refuses.
    """
    from ramflow.s3 import Store

    bucket, prefix = split_address(address.rstrip("/"))
    store, local = Store(), cache / bucket / prefix
    with locked(lock_of(local, cache)):
        try:
            download(store, bucket, f"{prefix}/{verdict.FILE_NAME}", local / verdict.FILE_NAME)
        except NoSuchObject:
            (local / verdict.FILE_NAME).unlink(missing_ok=True)
        try:
            download(store, bucket, f"{prefix}/{DATASET_FILE}", local / DATASET_FILE)
        except NoSuchObject:
            raise UserError(f"{address} is not a packed dataset: it has no {DATASET_FILE}") from None
        tables = _tables_of(local / DATASET_FILE, address)
        for name, digest in tables.items():
            if not (local / name).is_file() or sha256_file(local / name) != digest:
                download(store, bucket, f"{prefix}/{name}", local / name, digest)
        with whole_file(local / SHARDS_FILE) as temporary:
            temporary.write_text(json.dumps({"address": f"s3://{bucket}/{prefix}"}) + "\n", encoding="utf-8")
        remove_others(local, {local / name for name in (DATASET_FILE, verdict.FILE_NAME, SHARDS_FILE, *tables)})
    return local


def _tables_of(path: Path, address: str) -> dict[str, str]:
    """Digest of every file that ``dataset.json`` lists and that is not a shard."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        if all(Path(name).name == name and digest.startswith("sha256:") for name, digest in files.items()):
            return {name: digest for name, digest in files.items() if not name.endswith(".tar")}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{address}/{DATASET_FILE} is damaged: pack the dataset again")
