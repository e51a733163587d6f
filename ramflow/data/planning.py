"""Making a plan: the records are read, their images found, and the shards cut."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from ramflow import storage
from ramflow.data.captions import find_by_caption
from ramflow.data.image_index import Indexed, index_images
from ramflow.data.places import REASONS, Ints, Places, find_by_path, refuse_bad_paths
from ramflow.data.plan import PLACES, PLAN_FILE, RECORDS, Claim, Plan, Planned, PlannedShard
from ramflow.data.records import Piece, json_pass, piece_path
from ramflow.data.sources import Root


def make_plan(directory: Path, annotations: Sequence[str], roots: Sequence[Root], claim: Claim, workers: int) -> Plan:
    """Make the plan in ``directory``, which is empty.

    In memory: 29 bytes a record, and what :func:`find_by_path` and :func:`find_by_caption` say.

    Raises:
        UserError: annotations or tars are damaged, or the store refuses.
    """
    pieces = json_pass(annotations, directory / RECORDS, workers)
    files = [piece_path(directory / RECORDS, n) for n in range(len(pieces))]
    work = directory / "work"
    indexed = index_images(roots, work / "index", workers)
    places = Places(sum(piece.records for piece in pieces))
    refuse_bad_paths(places, files)
    find_by_path(places, files, indexed)
    by_caption = any(root.match == "caption" for root in roots)
    matched = find_by_caption(places, files, indexed, work / "captions") if by_caption else {}
    _write_places(directory / PLACES, pieces, places, indexed)
    shards = cut_shards(places.size, _splits(pieces), claim.shard_bytes)
    planned = Planned(claim, _digest(claim, places), indexed.containers, pieces, shards, matched)
    shutil.rmtree(work)
    with storage.whole_file(directory / PLAN_FILE) as temporary:
        temporary.write_bytes(msgspec.json.encode(planned))
    return Plan(directory, planned)


def cut_shards(sizes: Ints, splits: Sequence[tuple[str, int, int]], shard_bytes: int) -> list[PlannedShard]:
    """Which records each shard takes: it is closed by the record with which its images reach ``shard_bytes``.

    Records without an image that are left at the end of a split go to the shard after them (the last ones to the one
    before), so that no shard is without samples, and where there are samples every record belongs to a shard.

    Args:
        sizes: bytes of each record's image, -1 where it has none.
        splits: name, first record and end of each.
        shard_bytes: above 0.
    """
    bytes_to = np.concatenate([[0], np.cumsum(np.maximum(sizes, 0))])
    samples_to = np.concatenate([[0], np.cumsum(sizes >= 0)])
    shards: list[PlannedShard] = []
    taken = 0
    for split, first, end in splits:
        number = 0
        while first < end:
            reached = int(np.searchsorted(bytes_to[first : end + 1], bytes_to[first] + shard_bytes))
            stop = min(first + reached, end)
            samples = int(samples_to[stop] - samples_to[first])
            if samples:
                shards.append(PlannedShard(f"{split}-{number:05d}.tar", split, taken, stop, samples))
                number, taken = number + 1, stop
            first = stop
    if shards:
        last = shards[-1]
        shards[-1] = PlannedShard(last.name, last.split, last.first, len(sizes), last.samples)
    return shards



def _splits(pieces: Sequence[Piece]) -> list[tuple[str, int, int]]:
    """Name, first record and end of each split, in order."""
    splits: dict[str, tuple[int, int]] = {}
    first = 0
    for piece in pieces:
        splits[piece.split] = (splits.get(piece.split, (first, 0))[0], first + piece.records)
        first += piece.records
    return [(split, *bounds) for split, bounds in splits.items()]


def _write_places(folder: Path, pieces: Sequence[Piece], places: Places, indexed: Indexed) -> None:
    """Write the pieces that go with the records: container, name, offset, size, reason."""
    folder.mkdir()
    names = _names(places, indexed)
    reasons = pl.Series([why or None for why in REASONS], dtype=pl.String)
    first = 0
    for n, piece in enumerate(pieces):
        rows = slice(first, first + piece.records)
        first += piece.records
        frame = pl.DataFrame({
            "container": places.container[rows], "image": places.image[rows], "offset": places.offset[rows],
            "size": places.size[rows], "reason": reasons.gather(places.reason[rows]),
        })  # fmt: skip
        there = pl.when(pl.col("size") >= 0)
        frame = frame.join(names, on="image", how="left", maintain_order="left").with_columns(
            there.then("container").alias("container"), there.then("size").alias("size")).drop("image")  # fmt: skip
        frame.write_parquet(piece_path(folder, n), compression="lz4")


def _names(places: Places, indexed: Indexed) -> pl.DataFrame:
    """Frame (image, name) of the loose files that were matched by caption: about 80 bytes each."""
    loose = [n for n, c in enumerate(indexed.containers) if not c.tar]
    used = pl.LazyFrame({"image": places.image[places.image >= 0]})
    images = indexed.scan().filter(pl.col("container").is_in(loose)).select("image", "name")
    return images.join(used, on="image", how="semi").collect(engine="streaming")


def _digest(claim: Claim, places: Places) -> str:
    content = hashlib.sha256(msgspec.json.encode(claim, order="deterministic"))
    for array in (places.size.astype("<i8"), places.reason):
        content.update(array.tobytes())
    return "sha256:" + content.hexdigest()
