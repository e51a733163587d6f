"""The packed dataset read back: places, tags and bytes of any sample, without holding what grows with the set."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow import storage
from ramflow.data.index import INDEX_FILE, Index
from ramflow.data.read_ahead import ReadAhead
from ramflow.data.shards import ShardReader
from ramflow.errors import UserError
from ramflow.tags import TagTable, read_tags

if TYPE_CHECKING:
    from ramflow.data.cache import ShardCache

DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
MISSING_FILE = "missing.parquet"
TAGS_FILE = "tags.csv"
SHARDS_FILE = "shards.json"
"""Says where the shards are, in a local copy of the tables of a set in S3."""
SPLITS = ("train", "validation", "test")
FORMAT = 2

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
MISSING_SCHEMA: dict[str, Any] = {
    "split": pl.String,
    "source": pl.String,
    "image_path": pl.String,
    "reason": pl.String,
}


FEW_SHARDS = 4
OWN = ("manifest", "missing", "tags", "_read_ahead")
"""What a Dataset does not hand to another process."""


@dataclass(frozen=True)
class Shard:
    """A tar file of samples ``first`` to ``first + samples``; ``bytes`` is the size of the file."""

    name: str
    split: str
    first: int
    samples: int
    bytes: int

    @property
    def range(self) -> range:
        """Numbers of its samples."""
        return range(self.first, self.first + self.samples)


class Dataset:
    """A packed dataset directory, opened for reading.

    A sample's number is its row in the manifest: splits follow one another, and keep the order of the annotation
    files. Safe and cheap to hand to worker processes: arrays are slices of a memory-mapped file, and shard files are
    opened by the process that reads them. Where ``shards.json`` names an s3:// address, shards come through the
    cache of :class:`ramflow.data.cache.ShardCache`.
    """

    def __init__(self, directory: Path) -> None:
        """Open ``directory``.

        Raises:
            UserError: it is not a packed dataset, or its parts do not belong together.
        """
        self.directory = directory
        self.info = _read_info(directory)
        for name in (INDEX_FILE, MISSING_FILE, TAGS_FILE):
            self._check(name)
        self._index = Index(directory / INDEX_FILE)
        self.cache = _cache(directory, self.info["files"])
        self._shards = ShardReader(directory) if self.cache is None else ShardReader(directory, self.cache)
        self.shards = [Shard(**shard) for shard in self.info["shards"]]
        self._firsts = [shard.first for shard in self.shards if shard.samples]
        self._filled = [shard for shard in self.shards if shard.samples]

    def _check(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_file():
            raise UserError(f"{path} is gone: fetch or pack the dataset again")
        if storage.sha256_file(path) != self.info["files"].get(name):
            raise UserError(f"{path} is not the file that {DATASET_FILE} describes: fetch or pack the dataset again")
        return path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in OWN}

    def __len__(self) -> int:
        return int(self.info["samples"])

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` of ``dataset.json``, which lists the digests of all shards and tables."""
        return storage.sha256_file(self.directory / DATASET_FILE)

    @cached_property
    def splits(self) -> dict[str, range]:
        """Sample numbers of each split, an empty range where it has none."""
        ranges, first = {}, 0
        for split in SPLITS:
            ranges[split] = range(first, first + self.info["splits"].get(split, 0))
            first = ranges[split].stop
        return ranges

    @cached_property
    def _manifest_path(self) -> Path:
        return self._check(MANIFEST_FILE)

    def scan(self) -> pl.LazyFrame:
        """The manifest (``MANIFEST_SCHEMA``) with the sample's number in the column ``sample``, not read yet.

        Raises:
            UserError: ``manifest.parquet`` is gone, or is not the one that belongs here.
        """
        return pl.scan_parquet(self._manifest_path).with_row_index("sample").cast({"sample": pl.Int64})

    @cached_property
    def manifest(self) -> pl.DataFrame:
        """All of the manifest; for small sets, it takes about 0.5 kB a sample."""
        return pl.read_parquet(self._manifest_path)

    @cached_property
    def missing(self) -> pl.DataFrame:
        """Records whose image was not found when packing, with the columns of ``MISSING_SCHEMA``."""
        return pl.read_parquet(self.directory / MISSING_FILE)

    @cached_property
    def tags(self) -> TagTable:
        """The tag list that the ids of the annotations point into."""
        return read_tags(self.directory / TAGS_FILE)

    @cached_property
    def _read_ahead(self) -> ReadAhead:
        return ReadAhead(self.directory)

    def prefetch(self, shards: Sequence[str]) -> None:
        """Bring shards nearer in the background: from S3 into the cache, from the disk into memory where they fit."""
        (self.cache or self._read_ahead).prefetch(shards)

    def some(self, count: int) -> list[int]:
        """Numbers of up to ``count`` samples, from no more shards than it takes: each may have to come from S3."""
        step = max(1, len(self._filled) // FEW_SHARDS)
        while step > 1 and sum(shard.samples for shard in self._filled[::step]) < count:
            step //= 2
        samples = np.array([sample for shard in self._filled[::step] for sample in shard.range], dtype=np.int64)
        chosen: list[int] = samples[np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int)].tolist()
        return chosen

    def shard_of(self, sample: int) -> Shard:
        """The shard that holds a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(sample)
        return self._filled[bisect_right(self._firsts, sample) - 1]

    def image(self, sample: int) -> bytes:
        """The image bytes of a sample, unchanged since packing.

        Raises:
            UserError: the shard is gone or shorter than the index says.
        """
        return self._shards.read(self.shard_of(sample).name, *self._index.place(sample))

    def union_tags(self, sample: int) -> npt.NDArray[np.int32]:
        """Tag ids of a sample, as annotated."""
        return self._index.union_tags(sample)

    def usable_captions(self, sample: int) -> npt.NDArray[np.int64]:
        """Numbers, within the sample, of its captions that hold more than white space."""
        return self._index.usable_captions(sample)

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """The bytes at ``offset`` of a shard.

        Raises:
            UserError: the shard is gone or shorter than that.
        """
        return self._shards.read(shard, offset, length)


def _cache(directory: Path, digests: dict[str, str]) -> ShardCache | None:
    path = directory / SHARDS_FILE
    if not path.is_file():
        return None
    from ramflow.data.cache import ShardCache

    return ShardCache(json.loads(path.read_text(encoding="utf-8"))["address"], digests)


def _read_info(directory: Path) -> dict[str, Any]:
    path = directory / DATASET_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["format"] == FORMAT and isinstance(info["files"], dict) and isinstance(info["shards"], list):
            return dict(info)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} is not a packed dataset, it has no {DATASET_FILE}: see `ramflow pack`") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: fetch or pack the dataset again") from None
    raise UserError(f"{path} is of another version of ramflow: pack the dataset again")
