"""What pack says about its work: how many images are missing, and which could not be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from ramflow import storage
from ramflow.data import dataset as ds
from ramflow.data.places import SEVERAL_IMAGES, SEVERAL_RECORDS, SEVERAL_SIZES
from ramflow.data.shard_writer import Note
from ramflow.verdict import MAX_EXAMPLES, Check, Verdict, check, share_of

MAX_MISSING = 0.5


def judge(
    directory: Path, shards: Sequence[Note], inputs: dict[str, str], matched: Mapping[str, int], max_missing: float
) -> Verdict:
    """The verdict on the packed directory, written into it.

    Args:
        directory: with its tables.
        shards: all of them.
        inputs: digests by name.
        matched: records matched by caption, by how; empty where none was to be.
        max_missing: share of records whose image may be missing.
    """
    missing = pl.scan_parquet(directory / ds.MISSING_FILE)
    samples = sum(shard.samples for shard in shards)
    records = samples + _count(missing)
    by_caption = missing.filter(pl.col("reason").is_in([SEVERAL_IMAGES, SEVERAL_RECORDS]))
    checks = [
        _missing(missing, records, max_missing),
        _ambiguous("pack.ambiguous_path", missing.filter(pl.col("reason") == SEVERAL_SIZES), records,
                   "have a path with files of different sizes below it: remove the wrong ones"),
    ]  # fmt: skip
    metrics = {"records": records, "samples": samples, "missing": records - samples, "shards": len(shards)}
    metrics["bytes"] = sum(shard.bytes for shard in shards)
    if matched:
        metrics |= {**matched, "ambiguous": _count(by_caption)}
        checks.append(_ambiguous("pack.ambiguous_caption", by_caption, records,
                                 "have captions that do not tell their image: they are left out"))  # fmt: skip
    outputs = {ds.DATASET_FILE: storage.sha256_file(directory / ds.DATASET_FILE)}
    result = Verdict("pack", checks, metrics, inputs=inputs, outputs=outputs)
    result.write(directory)
    return result


def _missing(missing: pl.LazyFrame, records: int, max_missing: float) -> Check:
    count = _count(missing)
    return check(
        "pack.missing_image", "error", count, records,
        f"{count} of {records} records have no image; {ds.MISSING_FILE} lists them: check the folder of images",
        limit=share_of(max_missing, records), examples=_examples(missing),
    )  # fmt: skip


def _ambiguous(id: str, rows: pl.LazyFrame, records: int, what: str) -> Check:
    count = _count(rows)
    message = f"{count} of {records} records {what}; {ds.MISSING_FILE} lists them"
    return check(id, "warning", count, records, message, examples=_examples(rows))


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())


def _examples(rows: pl.LazyFrame) -> list[str]:
    return rows.select("image_path").head(MAX_EXAMPLES).collect()["image_path"].to_list()
