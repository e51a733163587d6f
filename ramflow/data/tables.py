"""The tables of a packed dataset, put together from the pieces that its shards left: one piece in memory at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ramflow import storage
from ramflow.data import dataset as ds
from ramflow.data.index import INDEX_FILE, write_index
from ramflow.tags import TagTable

ROW_GROUP = 1 << 16


@dataclass(frozen=True)
class PackedShard:
    """A shard that is whole on disk.

    ``rows`` are its rows of the manifest, Parquet with ``MANIFEST_SCHEMA``; ``sources`` counts its samples.
    """

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str
    rows: Path
    sources: dict[str, int] = field(default_factory=dict)


def write_tables(directory: Path, shards: Sequence[PackedShard], missing: Sequence[Path], tags: TagTable) -> None:
    """Write ``manifest.parquet``, ``missing.parquet``, ``index.safetensors``, ``tags.csv`` and ``dataset.json``.

    Args:
        directory: where the shards are.
        shards: all of them, in the order of their samples.
        missing: Parquet files with ``MISSING_SCHEMA``, in the order of their records.
        tags: the tag list.
    """
    pieces = [shard.rows for shard in shards]
    _join(pieces, directory / ds.MANIFEST_FILE, ds.MANIFEST_SCHEMA)
    _join(missing, directory / ds.MISSING_FILE, ds.MISSING_SCHEMA)
    write_index(directory / INDEX_FILE, pieces)
    tags.write(directory / ds.TAGS_FILE)
    tables = (ds.MANIFEST_FILE, ds.MISSING_FILE, ds.TAGS_FILE, INDEX_FILE)
    digests = {name: storage.sha256_file(directory / name) for name in tables}
    info = _describe(shards, tags)
    info["missing"] = pl.scan_parquet(directory / ds.MISSING_FILE).select(pl.len()).collect().item()
    info["files"] = digests | {shard.name: shard.sha256 for shard in shards}
    (directory / ds.DATASET_FILE).write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _join(pieces: Sequence[Path], path: Path, schema: dict[str, pl.DataType]) -> None:
    if pieces:
        pl.scan_parquet(list(pieces), schema=schema).sink_parquet(path, row_group_size=ROW_GROUP)
    else:
        pl.DataFrame(schema=schema).write_parquet(path)


def _describe(shards: Sequence[PackedShard], tags: TagTable) -> dict[str, object]:
    splits: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    listed, first = [], 0
    for shard in shards:
        listed.append({"name": shard.name, "split": shard.split, "first": first,
                       "samples": shard.samples, "bytes": shard.bytes})  # fmt: skip
        first += shard.samples
        splits[shard.split] += shard.samples
        sources.update(shard.sources)
    return {
        "format": ds.FORMAT,
        "samples": first,
        "splits": {split: count for split, count in splits.items() if count},
        "sources": dict(sources),
        "tags": {"count": len(tags), "digest": tags.digest},
        "shards": listed,
    }
