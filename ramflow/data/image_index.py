"""The index of images that are not looked up one by one: members of tars, objects below a prefix, captioned files.

It is a folder of Parquet pieces with ``INDEX_SCHEMA``, written by worker processes; an image's number is its row in all
of them, in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ramflow import storage
from ramflow.data.index_tasks import INDEX_SCHEMA, SIDECARS, LooseTask, TarTask
from ramflow.data.sources import TAR, Container, Match, Root
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.s3 import Store
from ramflow.workers import map_in_order

BATCH = 1 << 13

Task = TarTask | LooseTask
Add = Callable[[Container], int]
File = tuple[str, int]
"""Name and size of a loose file; 0 where the size is not known yet."""


@dataclass(frozen=True)
class Indexed:
    """An index: its folder, how many images it has, and what is needed to read them, in ``workers`` processes."""

    directory: Path
    images: int
    roots: Sequence[Root]
    containers: list[Container]
    workers: int

    @property
    def pieces(self) -> list[Path]:
        """Its Parquet files, in order."""
        return sorted(self.directory.glob("*.parquet"))

    def scan(self, match: Match | None = None) -> pl.LazyFrame:
        """The images of the roots that are matched so (None: all), with their number in the column ``image``."""
        frame = pl.scan_parquet(self.pieces) if self.images else pl.LazyFrame(schema=INDEX_SCHEMA)
        chosen = [n for n, c in enumerate(self.containers) if match in (None, self.roots[c.root].match)]
        return frame.with_row_index("image").cast({"image": pl.Int64}).filter(pl.col("container").is_in(chosen))


def index_images(roots: Sequence[Root], directory: Path, workers: int) -> Indexed:
    """Write the index of all roots into ``directory``.

    The loose files of a local folder that is matched by path are not in it, but their container is.

    Raises:
        UserError: nothing is at an s3:// address, or a tar is damaged.
    """
    directory.mkdir(parents=True)
    containers: list[Container] = []
    tasks = ((task, directory / f"{n:06d}.parquet") for n, task in enumerate(_tasks(roots, containers)))
    images = sum(track(map_in_order(_write, tasks, workers, chunk=1), "pack: listings and tars read", None))
    return Indexed(directory, images, roots, containers, workers)


def _write(task: tuple[Task, Path]) -> int:
    frame = task[0].frame()
    frame.write_parquet(task[1], compression="lz4")
    return len(frame)


def _tasks(roots: Sequence[Root], containers: list[Container]) -> Iterator[Task]:
    """What to index, as it is found; ``containers`` grows with it."""

    def add(container: Container) -> int:
        containers.append(container)
        return len(containers) - 1

    for number, root in enumerate(roots):
        captions = root.match == "caption"
        if root.remote:
            yield from _remote_tasks(number, root, add)
        elif os.path.isfile(root.address):
            yield TarTask(add(Container(number, tar=True)), root.address, 0, captions)
        else:
            loose = add(Container(number))
            if captions:
                for batch in _batches(_walk(root.address)):
                    yield LooseTask(loose, root, [name for name, _ in batch], [])
            with os.scandir(root.address) as entries:
                tars = sorted(e.name for e in entries if e.name.endswith(TAR) and e.is_file())
            for name in tars:
                yield TarTask(add(Container(number, name, tar=True)), root.join(name), 0, captions)


def _remote_tasks(number: int, root: Root, add: Add) -> Iterator[Task]:
    """One listing gives the sizes of all loose objects, and of the tars."""
    bucket, prefix = storage.split_address(root.address)
    captions = root.match == "caption"
    if prefix.endswith(TAR):
        size = dict(Store().objects(bucket, prefix)).get(prefix)
        if size is None:
            raise UserError(f"no such object: {root.address}")
        yield TarTask(add(Container(number, tar=True)), root.address, size, captions)
        return
    loose = add(Container(number))
    tars: list[File] = []
    found = False
    for batch in _batches(_listed(bucket, prefix + "/", tars)):
        found = True
        yield LooseTask(loose, root, [name for name, _ in batch], [size for _, size in batch])
    if not found and not tars:
        raise UserError(f"no such prefix: there is no object below {root.address}/")
    for name, size in tars:
        yield TarTask(add(Container(number, name, tar=True)), root.join(name), size, captions)


def _listed(bucket: str, prefix: str, tars: list[File]) -> Iterator[File]:
    """The objects below a prefix; the tars directly in it are put into ``tars`` instead."""
    for key, size in Store().objects(bucket, prefix):
        name = key.removeprefix(prefix)
        if name.endswith(TAR) and "/" not in name:
            tars.append((name, size))
        elif not name.endswith("/"):
            yield name, size


def _walk(folder: str, below: str = "") -> Iterator[File]:
    """The files in and below a folder that may be images; links to folders are not followed."""
    folders = []
    with os.scandir(os.path.join(folder, below)) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(name + "/")
            elif entry.is_file() and not name.endswith((*SIDECARS, TAR)) and _is_text(name):
                yield name, 0
    for name in sorted(folders):
        yield from _walk(folder, name)


def _is_text(name: str) -> bool:
    """False for a file name that is not UTF-8."""
    return name.isascii() or name == name.encode("utf-8", "replace").decode()


def _batches(files: Iterator[File]) -> Iterator[list[File]]:
    """Lists of ``BATCH`` files or a few more: in a sorted listing an image and its sidecars stay together."""
    batch: list[File] = []
    for file in files:
        if len(batch) >= BATCH and _before_dot(file[0]) != _before_dot(batch[-1][0]):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _before_dot(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"
