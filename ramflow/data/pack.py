"""pack: upstream's annotation lists and a folder of images into WebDataset tar shards and one manifest.

Image bytes are copied unchanged. A shard is ``SPLIT-NNNNN.tar`` with two members a sample, ``KEY.EXT`` (the image)
and ``KEY.json`` (its record), so that ``webdataset`` and plain ``tar`` read it. The same input gives the same bytes.
A run that was stopped goes on after the last whole shard: what each shard holds is noted in ``.work`` beside it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ramflow import storage, verdict
from ramflow.data import dataset as ds
from ramflow.data.annotations import Record, read_annotations
from ramflow.data.shards import add_member
from ramflow.errors import UserError
from ramflow.progress import say, track
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Verdict, check

WORK = ".work"
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass
class _Shard:
    """What one shard holds: rows of the manifest, rows of the missing, and how many records they come from."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    records: int = 0
    bytes: int = 0


def pack(
    annotations: list[str],
    images: Path,
    tags: Path,
    out: Path,
    *,
    shard_bytes: int = 256 << 20,
    max_missing: float = 0.5,
) -> Verdict:
    """Pack annotation files and their images into the dataset directory ``out``.

    Args:
        annotations: ``FILE`` or ``SPLIT=FILE``, where SPLIT is train (the default), validation or test.
        images: the folder that every ``image_path`` is relative to.
        tags: the tag list that the ids point into.
        out: the dataset directory; appears whole, or stays as ``out.partial`` for the next run to go on with.
        shard_bytes: a shard is closed when its images reach this many bytes.
        max_missing: share of records whose image may be missing before the verdict is a no.

    Raises:
        UserError: a file is missing or damaged, or a record is malformed; found before anything is written.
    """
    table = read_tags(tags)
    if not images.is_dir():
        raise UserError(f"no such folder of images: {images}")
    files = [_split_of(a) for a in annotations]
    records = {s: [r for split, path in files if split == s for r in read_annotations(path)] for s in ds.SPLITS}
    if not any(records.values()):
        raise UserError(f"no record in {', '.join(str(path) for _, path in files)}: give annotation files with records")
    inputs = {f"annotations/{n}/{s}/{p.name}": storage.sha256_file(p) for n, (s, p) in enumerate(files)}
    inputs["tags"] = storage.sha256_file(tags)
    work = {"inputs": inputs, "images": str(images.resolve()), "shard_bytes": shard_bytes, "format": ds.FORMAT}
    with storage.whole_directory(out, marker=ds.DATASET_FILE, claim=work) as partial:
        shards = [s for split in ds.SPLITS for s in _pack_split(split, records[split], images, partial, shard_bytes)]
        result = _write_tables(partial, shards, table)
        result.inputs = inputs
        result.checks = [_missing_check(shards, max_missing)]
        result.outputs = {ds.DATASET_FILE: storage.sha256_file(partial / ds.DATASET_FILE)}
        result.write(partial)
        shutil.rmtree(partial / WORK)
    verdict.announce(result, str(out))
    return result


def _split_of(annotation: str) -> tuple[str, Path]:
    split, separator, path = annotation.partition("=")
    if separator and split in ds.SPLITS:
        return split, Path(path)
    return "train", Path(annotation)


def _pack_split(split: str, records: list[Record], images: Path, partial: Path, shard_bytes: int) -> list[_Shard]:
    """Pack what is not packed yet; returns all shards of the split."""
    shards = _packed(split, partial)
    start = sum(shard.records for shard in shards)
    if start:
        say(f"pack {split}: going on after {start} of {len(records)} records")
    pending: Iterator[Record] = track(iter(records[start:]), f"pack {split}", len(records) - start)
    while start < len(records):
        shard = _Shard(f"{split}-{len(shards):05d}.tar")
        with storage.whole_file(partial / shard.name) as temporary:
            _fill(shard, temporary, split, pending, start, images, shard_bytes)
            shard.bytes = temporary.stat().st_size
        with storage.whole_file(_note(partial, shard.name)) as temporary:
            temporary.write_bytes(msgspec.json.encode(shard))
        start += shard.records
        shards.append(shard)
    return shards


def _packed(split: str, partial: Path) -> list[_Shard]:
    """The whole shards an earlier run left, from the first without a gap; all other files of the split are removed."""
    shards: list[_Shard] = []
    while (note := _note(partial, name := f"{split}-{len(shards):05d}.tar")).is_file():
        shard = msgspec.json.decode(note.read_bytes(), type=_Shard)
        if not (partial / name).is_file() or (partial / name).stat().st_size != shard.bytes:
            break
        shards.append(shard)
    keep = {path for s in shards for path in (partial / s.name, _note(partial, s.name))}
    for path in [*partial.glob(f"{split}-*"), *(partial / WORK).glob(f"{split}-*")]:
        if path not in keep:
            path.unlink()
    return shards


def _note(partial: Path, shard: str) -> Path:
    return partial / WORK / f"{shard}.json"


def _fill(
    shard: _Shard, path: Path, split: str, records: Iterable[Record], first: int, images: Path, shard_bytes: int
) -> None:
    size = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for record in records:
            number = first + shard.records
            shard.records += 1
            data, reason = _read_image(images, record.image_path)
            if data is None:
                shard.missing.append({"split": split, "image_path": record.image_path, "reason": reason})
            else:
                row = _add(tar, f"{split}_{number:09d}", record, data)
                shard.rows.append({"split": split, "shard": shard.name, **row})
                size += len(data)
            if size >= shard_bytes:
                return


def _read_image(images: Path, image_path: str) -> tuple[bytes | None, str]:
    if Path(image_path).is_absolute() or ".." in Path(image_path).parts:
        return None, "the path is absolute or leaves the folder of images"
    if "\0" in image_path:
        return None, "the path holds a NUL character"
    try:
        return (images / image_path).read_bytes(), ""
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return None, os.strerror(error.errno).lower()


def _add(tar: tarfile.TarFile, key: str, record: Record, data: bytes) -> dict[str, Any]:
    path = Path(record.image_path)
    offset = add_member(tar, f"{key}.{_extension(path)}", data)
    add_member(tar, f"{key}.json", msgspec.json.encode(record))
    return {
        "key": key,
        "source": path.parts[0] if len(path.parts) > 1 else ".",
        "image_path": record.image_path,
        "offset": offset,
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "captions": record.caption,
        "union_tags": record.union_label_id,
        "parsed_tags": record.parse_label_id,
    }


def _extension(path: Path) -> str:
    """The file's own extension where a member of a shard can have it, else ``bin``; ``json`` is the record's."""
    extension = path.suffix.lower().lstrip(".")
    return extension if re.fullmatch("[a-z0-9]{1,8}", extension) and extension != "json" else "bin"


def _write_tables(partial: Path, shards: list[_Shard], table: TagTable) -> Verdict:
    manifest = pl.DataFrame([row for shard in shards for row in shard.rows], schema=ds.MANIFEST_SCHEMA)
    missing = pl.DataFrame([row for shard in shards for row in shard.missing], schema=ds.MISSING_SCHEMA)
    manifest.write_parquet(partial / ds.MANIFEST_FILE)
    missing.write_parquet(partial / ds.MISSING_FILE)
    table.write(partial / ds.TAGS_FILE)
    names = sorted([ds.MANIFEST_FILE, ds.MISSING_FILE, ds.TAGS_FILE, *(shard.name for shard in shards)])
    info = {
        "format": ds.FORMAT,
        "samples": len(manifest),
        "missing": len(missing),
        "splits": dict(manifest.group_by("split").len().sort("split").iter_rows()),
        "sources": dict(manifest.group_by("source").len().sort("source").iter_rows()),
        "tags": {"count": len(table), "digest": table.digest},
        "files": {name: storage.sha256_file(partial / name) for name in names},
    }
    (partial / ds.DATASET_FILE).write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Verdict("pack", metrics={"samples": len(manifest), "missing": len(missing), "shards": len(shards)})


def _missing_check(shards: list[_Shard], max_missing: float) -> verdict.Check:
    missing = [row["image_path"] for shard in shards for row in shard.missing]
    total = sum(shard.records for shard in shards)
    return check(
        "pack.missing_image", "error", len(missing), total,
        f"{len(missing)} of {total} records have no image; {ds.MISSING_FILE} lists them: check the folder of images",
        limit=verdict.share_of(max_missing, total), examples=missing,
    )  # fmt: skip
