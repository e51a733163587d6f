"""pack: upstream's annotation lists and images into WebDataset tar shards and one manifest.

Image bytes are copied unchanged. A shard is ``SPLIT-NNNNN.tar`` with two members a sample, ``KEY.EXT`` (the image)
and ``KEY.json`` (its record), so that ``webdataset`` and plain ``tar`` read it. First the whole packing is planned
(``plan.py``), then its shards are written in any order, in several processes or on several machines (``parts.py``),
then the tables. The same input gives the same bytes, however the work is divided. A run that was stopped goes on: it
keeps a finished plan and all finished shards.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ramflow import storage, verdict
from ramflow.data import dataset as ds
from ramflow.data.annotations import split_of
from ramflow.data.pack_verdict import MAX_MISSING, judge
from ramflow.data.parts import PART_FILE, PIECES, Part, write_part
from ramflow.data.plan import PLAN_FILE, Claim, Plan, read_plan
from ramflow.data.planning import make_plan
from ramflow.data.shard_range import check_inside
from ramflow.data.shard_writer import Job, Note, finished, missing_piece, pack_shard, packed
from ramflow.data.sources import Match, Root, parse_root
from ramflow.data.tables import write_tables
from ramflow.errors import UserError
from ramflow.progress import say, track
from ramflow.tags import TagTable, read_tags
from ramflow.verdict import Verdict
from ramflow.workers import map_in_order

WORK = ".work"
PLAN = "plan"


@dataclass(frozen=True)
class Source:
    """What is packed, and how; the fields are the arguments of :func:`pack`."""

    annotations: Sequence[str]
    images: Sequence[str | Path]
    tags: Path
    shard_bytes: int = 256 << 20
    match: Match = "path"
    workers: int = 1
    plan: Path | None = None


def pack(
    annotations: Sequence[str],
    images: str | Path | Sequence[str | Path],
    tags: Path,
    out: Path,
    *,
    shard_bytes: int = 256 << 20,
    match: Match = "path",
    workers: int = 1,
    plan: Path | None = None,
    max_missing: float = MAX_MISSING,
) -> Verdict:
    """Pack annotation files and their images into the dataset directory ``out``.

    Args:
        annotations: ``FILE`` or ``SPLIT=FILE``, where SPLIT is train (the default), validation or test.
        images: ``ROOT``, ``path=ROOT`` or ``caption=ROOT``, one or several: a folder, a tar, or an s3:// address of
            either. A file that is in several with one size is taken from the first; with several sizes it is missing.
        tags: the tag list that the ids point into; all columns of a table are kept, but for counts.
        out: the dataset directory; appears whole, or stays as ``out.partial`` for the next run to go on with.
        shard_bytes: a shard is closed when its images reach this many bytes.
        match: how the images of a root that does not say belong to records.
        workers: processes.
        plan: a folder that keeps the plan for other runs.
        max_missing: share of records whose image may be missing before the verdict is a no.

    Raises:
        UserError: a file is missing or damaged, or a record is malformed, found before anything is written; an image
            changed while it was packed, or the store refuses.
    """
    roots = [images] if isinstance(images, str | Path) else images
    given = _Given(Source(annotations, roots, tags, shard_bytes, match, workers, plan))
    with storage.whole_directory(out, marker=ds.DATASET_FILE, claim=given.work()) as partial:
        with _nothing_left(partial):
            planned = given.planned(partial)
        pieces = partial / WORK / PIECES
        notes = _pack_shards(given, planned, partial, pieces, range(len(planned.shards)))
        missing = [missing_piece(pieces, note.name) for note in notes] or _write_missing(planned, pieces)
        write_tables(partial, [packed(note, pieces) for note in notes], missing, given.tags)
        result = judge(partial, notes, given.inputs, planned.matched, max_missing)
        shutil.rmtree(partial / WORK)
    verdict.announce(result, str(out))
    return result


def pack_part(source: Source, shards: range, out: Path) -> None:
    """Pack these shards of the plan into the part ``out``.

    Raises:
        UserError: as :func:`pack`, or the plan has no such shards.
    """
    given = _Given(source)
    with storage.whole_directory(out, marker=PART_FILE, claim=given.work(shards)) as partial:
        with _nothing_left(partial):
            plan = given.planned(partial)
            check_inside(shards, len(plan.shards))
        notes = _pack_shards(given, plan, partial, partial / PIECES, shards)
        given.tags.write(partial / ds.TAGS_FILE)
        total = len(plan.shards)
        write_part(partial, Part(plan.digest, shards.start, shards.stop, total, given.inputs, plan.matched, notes))
        shutil.rmtree(partial / WORK, ignore_errors=True)
    samples = sum(note.samples for note in notes)
    say(f"pack: part {shards.start}:{shards.stop} of {len(plan.shards)} shards; samples {samples}; written to {out}")


def make_plan_only(source: Source) -> int:
    """Make the plan in the folder ``source.plan``, or find it made; returns the number of its shards.

    Raises:
        UserError: as :func:`pack`, or the folder holds something else.
    """
    assert source.plan is not None
    return len(_Given(source).kept_plan(source.plan).shards)


class _Given:
    """A source whose small inputs are read, and whose files are known to be there."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tags: TagTable = read_tags(source.tags).without_counts()
        self.roots: list[Root] = [parse_root(image, source.match) for image in source.images]
        files = [(split, Path(path)) for split, path in map(split_of, source.annotations)]
        for _, path in files:
            if not path.is_file():
                raise UserError(f"no such annotation file: {path}")
        self.inputs = {f"annotations/{n}/{s}/{p.name}": storage.sha256_file(p) for n, (s, p) in enumerate(files)}
        self.inputs["tags"] = storage.sha256_file(source.tags)
        self.claim = Claim(self.inputs, [root.match for root in self.roots], source.shard_bytes)

    def work(self, shards: range | None = None) -> dict[str, Any]:
        """What a partial output must be of to be gone on with."""
        images = [[root.match, root.address] for root in self.roots]
        plan = str(self.source.plan.resolve()) if self.source.plan else None
        return {"inputs": self.inputs, "images": images, "shard_bytes": self.source.shard_bytes, "format": ds.FORMAT,
                "plan": plan, "shards": shards and [shards.start, shards.stop]}  # fmt: skip

    def planned(self, partial: Path) -> Plan:
        """The plan that is kept, or the one of the partial output, made where it is not finished."""
        if self.source.plan is not None:
            return self.kept_plan(self.source.plan)
        directory = partial / WORK / PLAN
        if (plan := read_plan(directory)) is not None:
            return plan
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return self._make(directory)

    def kept_plan(self, directory: Path) -> Plan:
        """The plan in a folder that other runs use too.

        Raises:
            UserError: it is the plan of something else.
        """
        plan = read_plan(directory)
        if plan is None:
            with storage.whole_directory(directory, marker=PLAN_FILE) as partial:
                self._make(partial)
            plan = read_plan(directory)
            assert plan is not None
        if plan.claim != self.claim:
            raise UserError(
                f"{directory} is the plan of other annotations, tags, number or kind of --images, or --shard-mb: "
                "give another --plan, or delete it"
            )
        return plan

    def _make(self, directory: Path) -> Plan:
        return make_plan(directory, self.source.annotations, self.roots, self.claim, self.source.workers)


@contextmanager
def _nothing_left(partial: Path) -> Iterator[None]:
    """Remove ``partial`` when the user has to mend the input first: nothing in it can be gone on with."""
    try:
        yield
    except UserError:
        shutil.rmtree(partial)
        raise


def _pack_shards(given: _Given, plan: Plan, out: Path, pieces: Path, numbers: range) -> list[Note]:
    """Pack the shards that are not finished; returns the notes of all ``numbers``, in order."""
    pieces.mkdir(parents=True, exist_ok=True)
    names = [plan.shards[n].name for n in numbers]
    for other in {path.name for path in out.glob("*.tar")} - set(names):
        (out / other).unlink()
    todo = [n for n, name in zip(numbers, names, strict=True) if finished(pieces, out, name, plan.digest) is None]
    done = len(numbers) - len(todo)
    if done:
        say(f"pack: going on after {done} of {len(numbers)} shards")
    jobs = [Job(plan.directory, plan.digest, tuple(given.roots), out, pieces, n) for n in todo]
    begun, images = time.monotonic(), 0
    packing = map_in_order(pack_shard, jobs, max(1, min(given.source.workers, len(todo))), chunk=1)
    for samples in track(packing, "pack: shards", len(numbers), start=done):
        images += samples
    notes = [note for name in names if (note := finished(pieces, out, name, plan.digest))]
    assert len(notes) == len(numbers)
    seconds = max(time.monotonic() - begun, 1e-3)
    say(f"pack: {images} images into {len(todo)} shards, {images / seconds:.0f} images/s")
    return notes


def _write_missing(plan: Plan, pieces: Path) -> list[Path]:
    """For a set without any image, and so without shards: its records, in pieces."""
    written = []
    for n, records in enumerate(plan.rows(0, plan.records)):
        written.append(missing_piece(pieces, f"{n:06d}"))
        records.select(ds.MISSING_SCHEMA.keys()).with_columns(pl.col("reason").cast(pl.String)).write_parquet(written[-1])
    return written
