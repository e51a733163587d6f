"""Which image belongs to each record by its caption, for downloads whose file names mean nothing (CC3M, SBU).

An image has one caption, in the sidecar beside it; a record has one or more. First equal captions are matched; records
and images that this leaves over are matched by their captions normalised (``normalised``). A record whose captions lead
to several images that are not the same bytes is ambiguous, and so are several records that lead to one image: they have
no image, and the reason says so. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ramflow.data.image_index import Indexed
from ramflow.data.joins import join_by_key, key_parts
from ramflow.data.normalise import normalised
from ramflow.data.places import (
    FOR_GOOD,
    NO_CAPTION,
    REASONS,
    SEVERAL_IMAGES,
    SEVERAL_RECORDS,
    Bools,
    Ints,
    Places,
    scan_records,
)
from ramflow.data.sources import Place, Reader
from ramflow.progress import track
from ramflow.workers import check_stopped, map_in_order

READ_AT_A_TIME = 256
BLANK = pl.col("key").str.strip_chars() == ""


def find_by_caption(places: Places, pieces: Sequence[Path], indexed: Indexed, work: Path) -> dict[str, int]:
    """Look for the records without an image by their captions.

    Returns how many were found by equal, and by normalised captions.
    In memory: ``places``, some 400 bytes a caption that leads to an image, and a part of the join (``join_by_key``).
    (Measured: 1.1 GiB for 3.87 million records with 7.7 million captions and 2.8 million images.)

    Args:
        places: filled in.
        pieces: Parquet files of the records.
        indexed: the images.
        work: a folder for what is in between.
    """
    open_ = ~places.found & ~np.isin(places.reason, FOR_GOOD)
    places.reason[open_] = REASONS.index(NO_CAPTION)
    records = scan_records(pieces).select("row", key="caption").explode("key", empty_as_null=False).filter(~BLANK)
    images = indexed.scan("caption").select("image", "size", key="caption")
    taken = _match(places, records, images, open_, indexed)
    exactly = int((open_ & places.found).sum())
    open_ &= places.reason == REASONS.index(NO_CAPTION)
    free = np.ones(indexed.images, dtype=np.bool_)
    free[taken] = False
    records = _normalised(pieces, open_, work / "records", indexed.workers)
    images = _normalised(indexed.pieces, free, work / "images", indexed.workers)
    _match(places, records.rename({"number": "row"}), images.rename({"number": "image"}), open_, indexed)
    return {"matched_exactly": exactly, "matched_normalised": int((open_ & places.found).sum())}


def _match(places: Places, records: pl.LazyFrame, images: pl.LazyFrame, open_: Bools, indexed: Indexed) -> Ints:
    """Match by the column ``key``; returns the images that are not to be matched with other records any more.

    Args:
        places: filled in.
        records: (row, key), a row for each caption.
        images: (image, size, key).
        open_: the records that are looked for; the others' captions are passed over.
        indexed: the images.
    """
    copies = _copies(_alike(images, indexed.images), indexed)
    links = join_by_key(records, images.join(copies.lazy(), on="image", how="anti"), indexed.images, _by_key)
    links = links.filter(pl.Series(open_[links["row"].to_numpy()]))
    taken = links["images"].explode(empty_as_null=False).to_numpy()
    links = links.drop("images").unique(["row", "image"])
    of_one_size = (pl.col("image").n_unique() > 1) & (pl.col("size").n_unique() == 1)
    alike = links.filter(of_one_size.over("row")).select("image", group=pl.lit(0)).unique("image")
    content = pl.coalesce("first", "image").n_unique().over("row")
    links = links.join(_copies(alike, indexed), on="image", how="left").with_columns(
        images=pl.col("several").any().over("row") | (content > 1), records=pl.len().over("image") > 1)  # fmt: skip
    shared, several = pl.col("records").any().over("row"), pl.col("images")
    places.refuse(links.filter(shared)["row"].to_numpy(), SEVERAL_RECORDS)
    places.refuse(links.filter(several)["row"].to_numpy(), SEVERAL_IMAGES)
    _take(places, links.filter(~shared & ~several).group_by("row").agg(pl.col("image").min()), indexed)
    return np.concatenate([taken, copies["image"].to_numpy()])


def _by_key(images: pl.LazyFrame) -> pl.LazyFrame:
    """One row a caption: its first image and the size of that, all of its images, and whether there are several."""
    first = pl.col("image").arg_min()
    return images.group_by("key").agg(
        pl.col("image").get(first), pl.col("size").get(first), images=pl.col("image"), several=pl.len() > 1
    )


def _alike(images: pl.LazyFrame, count: int) -> pl.DataFrame:
    """Frame (image, group) of the images that share caption and size with another one."""
    same = ("key", "size")
    groups = [
        images.filter(part)
        .with_columns(group=pl.col("image").min().over(same), members=pl.len().over(same))
        .filter(pl.col("members") > 1)
        .select("image", "group")
        .collect()
        for part in key_parts(count)
    ]
    return pl.concat(groups)


def _copies(alike: pl.DataFrame, indexed: Indexed) -> pl.DataFrame:
    """Frame (image, first) of the images that are byte for byte an earlier one of their group; all are read.

    Args:
        alike: (image, group).
        indexed: the images.
    """
    places = _index_rows(alike["image"], indexed).join(alike, on="image").sort("image")
    batches = (
        (indexed, [Place(*row) for row in batch.select("container", "name", "offset", "size").iter_rows()])
        for batch in places.iter_slices(READ_AT_A_TIME)
    )
    digests = map_in_order(_digests, batches, indexed.workers if len(places) > READ_AT_A_TIME else 1, chunk=1)
    total = -(-len(places) // READ_AT_A_TIME)
    read = [d for batch in track(digests, "pack: images of one caption and size compared", total) for d in batch]
    first = pl.col("image").min().over("group", "digest")
    found = places.with_columns(digest=pl.Series(read, dtype=pl.Binary)).select("image", first=first)
    return found.filter(pl.col("image") != pl.col("first"))


def _digests(task: tuple[Indexed, list[Place]]) -> list[bytes]:
    indexed, places = task
    reader = Reader(indexed.roots, indexed.containers)
    try:
        return [hashlib.sha256(data).digest() for data in reader.read_all(places)]
    finally:
        reader.close()


def _index_rows(images: pl.Series, indexed: Indexed) -> pl.DataFrame:
    """The rows of the index of some images, without captions; in no order."""
    wanted = pl.LazyFrame({"image": images.unique().cast(pl.Int64)})
    return indexed.scan("caption").drop("caption").join(wanted, on="image", how="semi").collect(engine="streaming")


def _take(places: Places, links: pl.DataFrame, indexed: Indexed) -> None:
    index = _index_rows(links["image"], indexed).drop("name")
    links = links.join(index, on="image")
    rows = links["row"].to_numpy()
    for column in ("size", "container", "offset", "image"):
        getattr(places, column)[rows] = links[column].to_numpy()
    places.reason[rows] = 0


def _normalised(pieces: Sequence[Path], wanted: Bools, work: Path, workers: int) -> pl.LazyFrame:
    """Frame (number, size where there is one, key) of the captions, normalised, of the rows that are wanted."""
    work.mkdir(parents=True)
    tasks, first = [], 0
    for piece in pieces:
        rows = pl.scan_parquet(piece).select(pl.len()).collect().item()
        if wanted[first : first + rows].any():
            tasks.append((piece, first, wanted[first : first + rows], work / piece.name))
        first += rows
    done = map_in_order(_normalise, tasks, max(1, min(workers, len(tasks))), chunk=1)
    for _ in track(done, "pack: captions normalised", len(tasks)):
        pass
    schema: dict[str, Any] = {"number": pl.Int64, "size": pl.Int64, "key": pl.String}
    return pl.scan_parquet([task[3] for task in tasks], schema=schema) if tasks else pl.LazyFrame(schema=schema)


def _normalise(task: tuple[Path, int, Bools, Path]) -> None:
    check_stopped()
    piece, first, wanted, out = task
    columns = pl.scan_parquet(piece)
    size = pl.col("size") if "size" in columns.collect_schema() else pl.lit(None, pl.Int64).alias("size")
    numbers = pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias("number")
    frame = columns.select(numbers, size, key="caption").collect().filter(pl.Series(wanted))
    if frame.schema["key"] == pl.List(pl.String):
        frame = frame.explode("key", empty_as_null=False)
    keys = pl.Series("key", [normalised(caption or "") for caption in frame["key"]], dtype=pl.String)
    frame.with_columns(keys).filter(~BLANK).write_parquet(out, compression="lz4")
