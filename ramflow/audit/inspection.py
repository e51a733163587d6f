"""One unit inspected, in a worker process: failures, counts, and the index that the checks of the whole set read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit import paths, tags, text
from ramflow.audit.checks import QUARANTINING, UNUSABLE
from ramflow.audit.findings import FAULT_SCHEMA, in_order
from ramflow.audit.records import Records, first_bits
from ramflow.audit.tally import Counted, Tally
from ramflow.audit.units import PieceUnit, SampleUnit, Unit
from ramflow.data.dataset import Dataset
from ramflow.settings import AuditSettings
from ramflow.workers import check_stopped

NUMBER_DIGITS = 9
"""At the end of a key: the record's number in its split."""


class Inspected(NamedTuple):
    """What is known of a unit; tables are Parquet, ready for the disk.

    ``samples``: a row a record: ``image_path``, ``path`` (64-bit hash of it); of packed samples also ``number`` (the
    record's in its split), ``sha`` (the first 64 bits of the sha256), ``picture`` (it has bytes), ``phash`` (null:
    none). ``captions``: a row a caption that is not blank nor an earlier one of its record: ``row``, ``number``,
    ``hash`` (64 bits), ``caption``. ``found``: failures in order (``FOUND_SCHEMA``), where ``sample`` is the row here,
    and ``key`` is null for annotations.
    """

    rows: int
    samples: bytes
    captions: bytes
    found: bytes | None
    tally: Tally
    unusable: int


def inspect_unit(unit: Unit, settings: AuditSettings, tag_count: int, dropped: Sequence[int] = ()) -> Inspected:
    """Run every check of single records on a unit; the tag list has ``tag_count`` tags, some ids of it ``dropped``.

    Raises:
        UserError: it cannot be read: a shard is gone or cut off, an annotation file is damaged.
    """
    check_stopped()
    records = unit.read()
    of_tags, counted = tags.find(records, tag_count, dropped)
    failures = [*text.find(records, settings), *of_tags, paths.find(records.paths)]
    samples = pl.DataFrame({"image_path": records.paths, "path": records.paths.hash()})
    if isinstance(unit, SampleUnit):
        faults, looked = _look(unit, settings)
        failures.append(faults)
        number = unit.rows["key"].str.slice(-NUMBER_DIGITS).cast(pl.UInt32)
        sha, picture = first_bits(unit.rows["sha256"]), unit.rows["length"] > 0
        samples = samples.with_columns(looked, number=number, sha=sha, picture=picture)
    found = pl.concat(failures)
    aside = _rows_found(found, QUARANTINING, len(records))
    return Inspected(
        rows=len(records),
        samples=_parquet(samples),
        captions=_parquet(_captions(records)),
        found=_parquet(_named(found, records, unit)) if len(found) else None,
        tally=_tally(unit, records, counted, aside, tag_count),
        unusable=int(_rows_found(found, UNUSABLE, len(records)).sum()),
    )


def _look(unit: SampleUnit, settings: AuditSettings) -> tuple[pl.DataFrame, pl.Series]:
    """Failures of the images, and their perceptual hashes."""
    from ramflow.audit import images

    dataset = _opened(unit.dataset)
    faults: list[tuple[str, int, str]] = []
    hashes: list[int | None] = []
    for number, row in enumerate(unit.rows.iter_rows(named=True)):
        listed = images.Row(*(row[name] for name in images.Row._fields))
        looked = images.inspect(dataset.read(row["shard"], row["offset"], row["length"]), listed, settings)
        faults += [(check, number, detail) for check, detail in looked.faults]
        hashes.append(looked.phash)
    return pl.DataFrame(faults, schema=FAULT_SCHEMA, orient="row"), pl.Series("phash", hashes, dtype=pl.UInt64)


@cache
def _opened(directory: Path) -> Dataset:
    return Dataset(directory)


def _captions(records: Records) -> pl.DataFrame:
    captions = records.captions.cast({"row": pl.UInt32, "number": pl.UInt32})
    captions = captions.select("row", "number", pl.col("caption").hash().alias("hash"), "caption")
    # an odd factor spreads the rows over 64 bits, so that a hash is unlike that of another record's
    own = captions["hash"].to_numpy() ^ (captions["row"].to_numpy() * np.uint64(0x9E3779B97F4A7C15))
    again = ~pl.Series(own).is_first_distinct()
    blank = captions["caption"].str.strip_chars() == ""
    return captions.filter(~(again | blank))


def _rows_found(found: pl.DataFrame, checks: tuple[str, ...], rows: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(rows, dtype=np.bool_)
    mask[found.filter(pl.col("check").is_in(checks))["row"].to_numpy()] = True
    return mask


def _named(found: pl.DataFrame, records: Records, unit: Unit) -> pl.DataFrame:
    """Failures with the key and the path of their records, in order; records of annotations have no key yet."""
    row = found["row"]
    key = unit.rows["key"].gather(row) if isinstance(unit, SampleUnit) else pl.lit(None, pl.String)
    named = found.with_columns(key=key, image_path=records.paths.gather(row)).rename({"row": "sample"})
    return in_order(named).select("check", "sample", "key", "image_path", "detail")


def _tally(
    unit: Unit, records: Records, counted: npt.NDArray[np.bool_], aside: npt.NDArray[np.bool_], tag_count: int
) -> Tally:
    """Counts of a unit, a source at a time."""
    union = records.union
    if isinstance(unit, PieceUnit):
        sources, source_of = [unit.source], np.zeros(len(records), dtype=np.int64)
    else:
        names = unit.rows["source"]
        sources = names.unique(maintain_order=True).to_list()
        source_of = names.replace_strict(sources, range(len(sources)), return_dtype=pl.Int64).to_numpy()
    tally = Tally()
    for n, source in enumerate(sources):
        own = source_of == n
        of_union = own[union.rows]
        tally.rows[source, unit.split] = Counted(
            records=int(own.sum()),
            captions=int(records.captions_each[own].sum()),
            tags=int(of_union.sum()),
            positives=np.bincount(union.ids[of_union & counted], minlength=tag_count),
            aside=np.bincount(union.ids[of_union & counted & aside[union.rows]], minlength=tag_count),
        )
    return tally


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="lz4", statistics=False)
    return buffer.getvalue()
