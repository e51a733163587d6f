"""The packed dataset read back: manifest rows, and the bytes of any sample by offset."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ramflow import storage
from ramflow.data.shards import ShardReader
from ramflow.errors import UserError
from ramflow.tags import TagTable, read_tags

DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
MISSING_FILE = "missing.parquet"
TAGS_FILE = "tags.csv"
SPLITS = ("train", "validation", "test")
FORMAT = 1

MANIFEST_SCHEMA: dict[str, Any] = {
    "key": pl.String,
    "split": pl.String,
    "source": pl.String,
    "image_path": pl.String,
    "shard": pl.String,
    "offset": pl.Int64,
    "length": pl.Int64,
    "sha256": pl.String,
    "captions": pl.List(pl.String),
    "union_tags": pl.List(pl.Int32),
    "parsed_tags": pl.List(pl.List(pl.Int32)),
}
MISSING_SCHEMA: dict[str, Any] = {"split": pl.String, "image_path": pl.String, "reason": pl.String}


class Dataset:
    """A packed dataset directory, opened for reading.

    Rows of :attr:`manifest` keep the order of the annotation files; a sample's number is its row in it.
    Safe to hand to worker processes: shard files are opened by the process that reads them.
    """

    def __init__(self, directory: Path) -> None:
        """Open ``directory``.

        Raises:
            UserError: it is not a packed dataset, or its parts do not belong together.
        """
        self.directory = directory
        self.info = _read_info(directory)
        for name in (MANIFEST_FILE, MISSING_FILE, TAGS_FILE):
            self._check(name)
        self._shards = ShardReader(directory)

    def _check(self, name: str) -> None:
        path = self.directory / name
        if not path.is_file():
            raise UserError(f"{path} is gone: fetch or pack the dataset again")
        if storage.sha256_file(path) != self.info["files"].get(name):
            raise UserError(f"{path} is not the file that {DATASET_FILE} describes: fetch or pack the dataset again")

    @property
    def digest(self) -> str:
        """``sha256:...`` of ``dataset.json``, which lists the digests of all shards and tables."""
        return storage.sha256_file(self.directory / DATASET_FILE)

    @cached_property
    def manifest(self) -> pl.DataFrame:
        """All samples, a row each, with the columns of ``MANIFEST_SCHEMA``."""
        return pl.read_parquet(self.directory / MANIFEST_FILE)

    @cached_property
    def missing(self) -> pl.DataFrame:
        """Records whose image was not found when packing, with the columns of ``MISSING_SCHEMA``."""
        return pl.read_parquet(self.directory / MISSING_FILE)

    @cached_property
    def tags(self) -> TagTable:
        """The tag list that the ids of the annotations point into."""
        return read_tags(self.directory / TAGS_FILE)

    def samples(self, split: str) -> pl.DataFrame:
        """Rows of one split with their sample number in the column ``sample``."""
        return self.manifest.with_row_index("sample").filter(pl.col("split") == split)

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """The image bytes at ``offset`` of a shard, unchanged since packing.

        Raises:
            UserError: the shard is gone or shorter than the manifest says.
        """
        return self._shards.read(shard, offset, length)


def _read_info(directory: Path) -> dict[str, Any]:
    path = directory / DATASET_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["format"] == FORMAT and isinstance(info["files"], dict):
            return dict(info)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} is not a packed dataset, it has no {DATASET_FILE}: see `ramflow pack`") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: fetch or pack the dataset again") from None
    raise UserError(f"{path} is of another version of ramflow: pack the dataset again")
