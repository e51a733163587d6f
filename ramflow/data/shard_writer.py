"""One shard of a plan: its images copied into a tar, and its pieces of the tables, all there or none.

A shard is finished when its note is there, which is written last: after the pieces, and after the tar got its name.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from ramflow import storage
from ramflow.data import dataset as ds
from ramflow.data.annotations import SCHEMA, Record
from ramflow.data.plan import plan_of_this_process
from ramflow.data.shards import add_member
from ramflow.data.sources import Place, Reader, Root
from ramflow.data.tables import PackedShard

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BUFFER = 1 << 20


@dataclass(frozen=True)
class Job:
    """Shard number ``shard`` of the plan in the folder ``plan``: its tar goes into ``out``, the rest into ``pieces``.

    ``digest`` is the plan's.
    """

    plan: Path
    digest: str
    roots: tuple[Root, ...]
    out: Path
    pieces: Path
    shard: int


class Note(msgspec.Struct, frozen=True):
    """What a finished shard is, and the digest of the plan that it belongs to."""

    plan: str
    name: str
    split: str
    samples: int
    bytes: int
    sha256: str
    sources: dict[str, int]


def pack_shard(job: Job) -> int:
    """Pack one shard; returns its samples.

    Raises:
        UserError: an image is not what it was when planned, or the store refuses.
    """
    plan = plan_of_this_process(job.plan, job.digest)
    shard = plan.shards[job.shard]
    rows, missing = [pl.DataFrame(schema=ds.MANIFEST_SCHEMA)], [pl.DataFrame(schema=ds.MISSING_SCHEMA)]
    with storage.whole_file(job.out / shard.name) as temporary, closing(Reader(job.roots, plan.containers)) as reader:
        with _HashedFile(temporary) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for records in plan.rows(shard.first, shard.end):
                there = records.filter(pl.col("size").is_not_null())
                rows.append(_add(tar, shard.name, there, reader))
                missing.append(records.filter(pl.col("size").is_null()).select(ds.MISSING_SCHEMA.keys()))
        manifest = pl.concat(rows)
        _write(manifest, rows_piece(job.pieces, shard.name))
        _write(pl.concat(missing), missing_piece(job.pieces, shard.name))
        size = temporary.stat().st_size
    sources = dict(manifest["source"].value_counts().sort("source").iter_rows())
    note = Note(plan.digest, shard.name, shard.split, len(manifest), size, file.sha256, sources)
    with storage.whole_file(_note_path(job.pieces, shard.name)) as temporary:
        temporary.write_bytes(msgspec.json.encode(note))
    return len(manifest)


def finished(pieces: Path, out: Path, shard: str, plan: str) -> Note | None:
    """The note of a shard that is whole on disk and belongs to the plan with the digest ``plan``; else None."""
    try:
        note = msgspec.json.decode(_note_path(pieces, shard).read_bytes(), type=Note)
        whole = (out / shard).stat().st_size == note.bytes
    except (OSError, msgspec.MsgspecError):
        return None
    tables = rows_piece(pieces, shard).is_file() and missing_piece(pieces, shard).is_file()
    return note if whole and tables and note.plan == plan else None


def packed(note: Note, pieces: Path) -> PackedShard:
    """What the tables need to know of a finished shard."""
    rows = rows_piece(pieces, note.name)
    return PackedShard(note.name, note.split, note.samples, note.bytes, note.sha256, rows, note.sources)


def rows_piece(pieces: Path, shard: str) -> Path:
    """The shard's rows of the manifest."""
    return pieces / f"{shard}.rows.parquet"


def missing_piece(pieces: Path, shard: str) -> Path:
    """The shard's records without an image."""
    return pieces / f"{shard}.missing.parquet"


def _note_path(pieces: Path, shard: str) -> Path:
    return pieces / f"{shard}.json"


def _write(frame: pl.DataFrame, path: Path) -> None:
    with storage.whole_file(path) as temporary:
        frame.write_parquet(temporary)


def _add(tar: tarfile.TarFile, shard: str, records: pl.DataFrame, reader: Reader) -> pl.DataFrame:
    """Add the records, which all have an image; returns their rows of the manifest."""
    keys, offsets, digests = [], [], []
    numbered = zip(records["split"], records["number"], records.select(SCHEMA.keys()).iter_rows(), strict=True)
    images = reader.read_all(_places(records))
    for (split, number, row), data in zip(numbered, images, strict=True):
        record = Record(*row)
        keys.append(f"{split}_{number:09d}")
        offsets.append(add_member(tar, f"{keys[-1]}.{_extension(record.image_path)}", data))
        add_member(tar, f"{keys[-1]}.json", msgspec.json.encode(record))
        digests.append(hashlib.sha256(data).hexdigest())
    return records.with_columns(
        key=pl.Series(keys, dtype=pl.String), offset=pl.Series(offsets, dtype=pl.Int64),
        sha256=pl.Series(digests, dtype=pl.String), shard=pl.lit(shard), length="size", captions="caption",
        union_tags="union_label_id", parsed_tags="parse_label_id",
    ).select(ds.MANIFEST_SCHEMA.keys())  # fmt: skip


def _places(records: pl.DataFrame) -> Iterable[Place]:
    own = pl.col("image_path").str.strip_prefix("./")
    places = records.select("container", pl.coalesce("name", own), "offset", "size")
    return (Place(*row) for row in places.iter_rows())


def _extension(image_path: str) -> str:
    """The path's own extension where a member of a shard can have it, else ``bin``; ``json`` is the record's."""
    extension = Path(image_path).suffix.lower().lstrip(".")
    return extension if re.fullmatch("[a-z0-9]{1,8}", extension) and extension != "json" else "bin"


class _HashedFile(io.BufferedWriter):
    """A new file, whose digest is known when it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"), BUFFER)
        self._digest = hashlib.sha256()

    def write(self, data: ReadableBuffer) -> int:
        self._digest.update(data)
        return super().write(data)

    @property
    def sha256(self) -> str:
        return "sha256:" + self._digest.hexdigest()
