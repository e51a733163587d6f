"""A packed data set of the synthetic annotations, with shards that take no disk: for what does not look at pictures.

The tables are those of the real writer (``ramflow.data.tables``), from the generated records, with the places that
pictures of some 100 kB would have. The shards are sparse files of the right size, which read as zeros, and the sha256
of pictures and shards are made up.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.synthetic import Annotations
from ramflow.data import dataset as ds
from ramflow.data.annotations import parse, pieces, source_of
from ramflow.data.tables import PackedShard, write_tables
from ramflow.tags import read_tags

SHARD_SAMPLES = 2600
PICTURE_BYTES = (40_000, 160_000)
BLOCK = 512


def packed(made: Annotations) -> Path:
    """The packed set of ``made``, beside it, written when it is not there yet."""
    out = made.directory.with_name(made.directory.name.replace("annotations", "packed"))
    if not (out / ds.DATASET_FILE).is_file():
        shutil.rmtree(out, ignore_errors=True)
        pieces = out / "pieces"
        pieces.mkdir(parents=True)
        frames = _frames(made)
        shards = [_shard(out, pieces, number, first, rows) for number, (first, rows) in enumerate(frames)]
        write_tables(out, shards, [], read_tags(made.tags))
        shutil.rmtree(pieces)
    return out


def _frames(made: Annotations) -> Iterator[tuple[int, pl.DataFrame]]:
    """The number of the first sample of each shard, and its records."""
    first = 0
    for path in made.files:
        for piece in pieces(path):
            for rows in parse(piece).iter_slices(SHARD_SAMPLES):
                yield first, rows.with_columns(source=pl.lit(source_of(path)))
                first += len(rows)


def _shard(out: Path, pieces: Path, number: int, first: int, rows: pl.DataFrame) -> PackedShard:
    """Write a sparse shard and its rows of the manifest."""
    random = np.random.default_rng(number)
    length = random.integers(*PICTURE_BYTES, size=len(rows))
    member = BLOCK + -(-length // BLOCK) * BLOCK + BLOCK + 2 * BLOCK  # header, picture, header, record
    name = f"train-{number:05d}.tar"
    size = int(member.sum()) + 2 * BLOCK
    with (out / name).open("wb") as file:
        file.truncate(size)
    digests = random.bytes(32 * len(rows)).hex()
    manifest = rows.select(
        key=pl.format("train_{}", pl.int_range(first, first + len(rows)).cast(pl.String).str.zfill(9)),
        split=pl.lit("train"),
        source="source",
        image_path="image_path",
        shard=pl.lit(name),
        offset=pl.Series(np.cumsum(member) - member + BLOCK),
        length=pl.Series(length),
        sha256=pl.Series([digests[i : i + 64] for i in range(0, len(digests), 64)]),
        captions="caption",
        union_tags="union_label_id",
        parsed_tags="parse_label_id",
    )
    assert manifest.schema == pl.Schema(ds.MANIFEST_SCHEMA)
    path = pieces / f"{number}.parquet"
    manifest.write_parquet(path)
    sources = dict(rows["source"].value_counts().iter_rows())
    return PackedShard(name, "train", len(rows), size, random.bytes(32).hex(), path, sources)
