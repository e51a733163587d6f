"""The JSON pass: annotation files into Parquet pieces of records, in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from ramflow.data import annotations as an
from ramflow.data.dataset import SPLITS
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.workers import map_in_order

ROW_GROUP = 1 << 12


class Piece(msgspec.Struct, frozen=True):
    """Some records of one annotation file, in the Parquet file :func:`piece_path`."""

    split: str
    source: str
    records: int


def piece_path(folder: Path, number: int) -> Path:
    """The file of a piece, by its place in the order of all records."""
    return folder / f"{number:06d}.parquet"


def json_pass(annotations: Sequence[str], out: Path, workers: int) -> list[Piece]:
    """Stream annotation files into Parquet files in ``out``, split by split (train, validation, test).

    Memory does not grow with the files: each worker process holds one piece of 8 MiB of JSON, about 250 MB in all.

    Args:
        annotations: ``[SPLIT=]FILE`` of each file.
        out: the folder to make.
        workers: processes that parse.

    Raises:
        UserError: a file is missing or damaged, a record is malformed, or there is no record at all.
    """
    out.mkdir(parents=True)
    given = sorted(map(an.split_of, annotations), key=lambda file: SPLITS.index(file[0]))
    files = [(split, Path(path)) for split, path in given]
    total = sum(-(-path.stat().st_size // an.PIECE_BYTES) for _, path in files if path.is_file())
    owners: list[int] = []
    done: list[Piece] = []
    in_file = [0] * len(files)
    tasks = ((piece, piece_path(out, n)) for n, piece in enumerate(_cut([path for _, path in files], owners)))
    results = map_in_order(_parse, tasks, max(1, min(workers, total)), chunk=1)
    for result in track(results, "pack: pieces of annotations read", total):
        file = owners[len(done)]
        if isinstance(result, an.MalformedRecord):
            raise result.after(in_file[file])
        in_file[file] += result
        done.append(Piece(files[file][0], an.source_of(files[file][1]), result))
    if not any(piece.records for piece in done):
        raise UserError(f"no record in {', '.join(str(path) for _, path in files)}: give annotation files with records")
    return done


def _cut(files: Iterable[Path], owners: list[int]) -> Iterator[an.Piece]:
    """All pieces of all files; ``owners`` gets the number of each one's file."""
    for number, path in enumerate(files):
        for piece in an.pieces(path, an.PIECE_BYTES):
            owners.append(number)
            yield piece


def _parse(task: tuple[an.Piece, Path]) -> int | an.MalformedRecord:
    piece, out = task
    try:
        records = an.parse(piece)
    except an.MalformedRecord as error:
        return error
    records.write_parquet(out, compression="lz4", row_group_size=ROW_GROUP)
    return len(records)
