"""The audit stage: all checks over a packed dataset or over annotation files, on one machine or in parts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import polars as pl

from ramflow import stage, storage
from ramflow.audit.conclusion import conclude
from ramflow.audit.inspection import Inspected, inspect_unit
from ramflow.audit.merging import STAGE as PART_STAGE
from ramflow.audit.merging import describe, open_parts
from ramflow.audit.part import Part, PartWriter, read_part
from ramflow.audit.subject import Compared, Subject
from ramflow.audit.units import PieceUnit, piece_units, sample_ranges, sample_units
from ramflow.audit.whole import Range
from ramflow.data.annotations import MalformedRecord, source_of, split_of
from ramflow.data.dataset import SPLITS, Dataset
from ramflow.data.shard_range import check_inside, parse_range
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.settings import AuditSettings
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Verdict
from ramflow.workers import map_in_order

WORK = ".work"


def run(
    settings: AuditSettings,
    *,
    data: Path,
    out: Path,
    benchmarks: Path | None = None,
    previous: Path | None = None,
    thresholds: Path | None = None,
    embeddings: Path | None = None,
    parts: Sequence[str] = (),
) -> Verdict:
    """Audit the packed dataset ``data`` and write findings, quarantine and the counts of tags into ``out``.

    Args:
        settings: what is accepted.
        data: the packed dataset.
        out: the directory to fill.
        benchmarks: a folder of the benchmarks' images, to look for in the train split.
        previous: output of an earlier audit, to compare counts with.
        thresholds: a list of thresholds whose length to compare with the tag list's.
        embeddings: embeddings of the tags, in the same way.
        parts: outputs of :func:`run_part` that cover all shards, so that no image need be looked at again.

    Raises:
        UserError: ``data`` is not a packed dataset, or is damaged so that its parts cannot be read; ``parts`` are not
            all parts of it.
    """
    dataset = Dataset(data)
    with _work_in(out) as work:
        if parts:
            opened = open_parts([storage.fetch(part, stage.CACHE / "s3") for part in parts], dataset, settings)
        else:
            opened = [_inspect_shards(settings, dataset, range(len(dataset.shards)), work / "part")]
        ranges = [Range(samples.start, split) for split, samples in dataset.splits.items()]
        compared = Compared(benchmarks, previous, thresholds, embeddings)
        return conclude(settings, Subject(opened, ranges, dataset.tags, dataset), compared, out, work)


def run_part(settings: AuditSettings, *, data: Path, out: Path, shard_range: str) -> Verdict:
    """Look at the records and images of a range of shards, ``FIRST:END``; nothing is concluded.

    Raises:
        UserError: as :func:`run`; or the range is not one of the set's.
    """
    dataset = Dataset(data)
    shards = parse_range(shard_range)
    check_inside(shards, len(dataset.shards))
    _inspect_shards(settings, dataset, shards, out)
    return Verdict(PART_STAGE, metrics=describe(shards))


def _inspect_shards(settings: AuditSettings, dataset: Dataset, shards: range, directory: Path) -> Part:
    chosen = dataset.shards[shards.start : shards.stop]
    ranges = sample_ranges(chosen)
    look = partial(inspect_unit, settings=settings, tag_count=len(dataset.tags), dropped=dataset.tags.dropped)
    results = map_in_order(look, sample_units(dataset, ranges), settings.workers, chunk=1)
    writer = PartWriter(directory, chosen[0].first if chosen else 0)
    for result in track(results, "audit: 512 images at a time", len(ranges)):
        writer.add(result)
    writer.close()
    return read_part(directory)


def run_annotations(
    settings: AuditSettings,
    *,
    tags: Path,
    out: Path,
    annotations: Sequence[str],
    previous: Path | None = None,
    thresholds: Path | None = None,
    embeddings: Path | None = None,
) -> Verdict:
    """Audit annotation files alone, before any image is there: text, tags, the set.

    A record is known by its number over all files in order (``sample``) and by ``SOURCE[NUMBER]``, its file and its
    place there, from 0 (``key``).

    Args:
        settings: what is accepted.
        tags: the tag list that the ids point into.
        out: the directory to fill.
        annotations: ``FILE`` or ``SPLIT=FILE``, local or s3://; the split is train where it is not given.
        previous: as for :func:`run`, as are the rest.

    Raises:
        UserError: a file is missing or damaged, or a record is malformed.
    """
    files = _files(annotations)
    table = read_tags(tags)
    with _work_in(out) as work:
        ranges, part = _inspect_files(settings, files, table, work / "part")
        subject = Subject([part], ranges, table)
        verdict = conclude(settings, subject, Compared(None, previous, thresholds, embeddings), out, work)
    verdict.inputs = {
        f"annotations/{n}/{split}/{path.name}": storage.sha256_file(path) for n, (split, path) in enumerate(files)
    }
    return verdict


def _files(annotations: Sequence[str]) -> list[tuple[str, Path]]:
    files = []
    for annotation in annotations:
        split, path = split_of(annotation)
        files.append((split, storage.fetch(path, stage.CACHE / "s3")))
    twice = [source for source, count in Counter(source_of(path) for _, path in files).items() if count > 1]
    if twice:
        raise UserError(f"two annotation files are named {twice[0]}: their names are the sources, rename one")
    return sorted(files, key=lambda file: SPLITS.index(file[0]))


def _inspect_files(
    settings: AuditSettings, files: Sequence[tuple[str, Path]], table: TagTable, directory: Path
) -> tuple[list[Range], Part]:
    units = piece_units(files)
    writer = PartWriter(directory)
    firsts: dict[Path, int] = {}
    results = _in_order(settings, units, table, firsts, writer)
    for unit, result in track(results, "audit: 8 MiB at a time", len(units)):
        first = firsts.setdefault(unit.piece.path, writer.rows)
        number = pl.col("sample") + writer.rows - first
        writer.add(result, key=pl.format("{}[{}]", pl.lit(unit.source), number))
    writer.close()
    ranges = [Range(firsts[path], split, source_of(path)) for split, path in files if path in firsts]
    return ranges, read_part(directory)


def _in_order(
    settings: AuditSettings, units: Sequence[PieceUnit], table: TagTable, firsts: dict[Path, int], writer: PartWriter
) -> Iterator[tuple[PieceUnit, Inspected]]:
    look = partial(inspect_unit, settings=settings, tag_count=len(table), dropped=table.dropped)
    try:
        yield from zip(units, map_in_order(look, units, settings.workers, chunk=1), strict=True)
    except MalformedRecord as error:
        path: Path = error.args[0]
        raise error.after(writer.rows - firsts.get(path, writer.rows)) from None


@contextmanager
def _work_in(out: Path) -> Iterator[Path]:
    """A directory inside the output for what is not part of it."""
    work = out / WORK
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
