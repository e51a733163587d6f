"""Vectors of all captions, written into the map of a file, chunk after chunk; a run that was stopped goes on.

Neither captions nor vectors are ever held all together. A first pass over the manifest takes a 128-bit hash of every
caption, and says of each which one was the first with that text: only those are encoded. Chunks have fixed bounds, and
a chunk counts as done when its findings are on disk, after its vectors: so the bytes are those of an unbroken run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow import storage
from ramflow.data.dataset import Dataset
from ramflow.data.vectors import CAPTIONS_FILE, caption_rows, create_caption_file
from ramflow.embed.encoder import TextEncoder
from ramflow.embed.findings import caption_findings
from ramflow.progress import track

SAMPLES_A_CHUNK = 8192
HASH_BYTES = 16


@dataclass(frozen=True)
class Plan:
    """``offsets`` int64 [samples + 1] as on disk, of every row ``first`` int64 [captions], the first of its text."""

    offsets: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    @cached_property
    def chunks(self) -> list[tuple[int, slice]]:
        """First sample and rows of every chunk."""
        samples = len(self.offsets) - 1
        starts = range(0, samples, SAMPLES_A_CHUNK)
        ends = [self.offsets[min(start + SAMPLES_A_CHUNK, samples)] for start in starts]
        return [(s, slice(int(self.offsets[s]), int(end))) for s, end in zip(starts, ends, strict=True)]

    def own(self, rows: slice) -> npt.NDArray[np.bool_]:
        """Which of ``rows`` are the first of their text."""
        return self.first[rows] == np.arange(rows.start, rows.stop)


def make_plan(dataset: Dataset) -> Plan:
    """Look at every caption of the manifest once, a chunk at a time. Takes at most about 60 bytes a caption."""
    counts = dataset.scan().select(pl.col("captions").list.len().cast(pl.Int64)).collect().to_series().to_numpy()
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    hashes = np.empty((int(offsets[-1]), HASH_BYTES // 8), dtype=np.uint64)
    for start in track(
        range(0, len(counts), SAMPLES_A_CHUNK), "embed: read captions", -(-len(counts) // SAMPLES_A_CHUNK)
    ):
        texts = _read(dataset, start)
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest() for text in texts)
        hashes[offsets[start] : offsets[start] + len(texts)] = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    return Plan(offsets, _first_rows(hashes))


def _first_rows(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For every row of ``hashes`` [rows, 2] the first row that equals it."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    inherits = np.zeros(len(order), dtype=bool)
    inherits[1:] = hashes[order[1:], 0] == hashes[order[:-1], 0]
    inherits[1:] &= hashes[order[1:], 1] == hashes[order[:-1], 1]
    first = np.empty_like(order)
    first[order] = order[np.maximum.accumulate(np.where(inherits, 0, np.arange(len(order))))]
    return first


def _read(dataset: Dataset, start: int) -> list[str]:
    rows = dataset.scan().select("captions").slice(start, SAMPLES_A_CHUNK).collect()["captions"]
    texts: list[str] = rows.explode(empty_as_null=False).to_list()
    return texts


def embed_captions(
    dataset: Dataset, plan: Plan, encoder: TextEncoder, batch: int, out: Path, pieces: Path
) -> list[Path]:
    """Write ``captions.safetensors`` (layout: ``ramflow/data/vectors.py``) into ``out``, or go on with it.

    Args:
        dataset: whose captions; blank ones have a row as any other text (F13).
        plan: of this dataset.
        encoder: the text encoder.
        batch: texts at a time.
        out: where the file is.
        pieces: folder of one Parquet file of findings a chunk; a chunk whose file is there is done.

    Returns:
        The files of findings, in the order of the captions.
    """
    if not (out / CAPTIONS_FILE).is_file():
        for piece in pieces.glob("captions-*"):
            piece.unlink()
        create_caption_file(out, np.diff(plan.offsets), encoder.width)
    writer = _Writer(dataset, plan, encoder, batch, out, pieces)
    distinct = sum(int(plan.own(rows).sum()) for _, rows in plan.chunks)
    start = sum(int(plan.own(plan.chunks[number][1]).sum()) for number in writer.done)
    for _ in track(writer.run(), "embed captions", distinct, start):
        pass
    return [writer.place(number) for number in range(len(plan.chunks))]


class _Writer:
    """The chunks of a run, one after another."""

    def __init__(self, dataset: Dataset, plan: Plan, encoder: TextEncoder, batch: int, out: Path, pieces: Path) -> None:
        self.dataset, self.plan, self.encoder, self.batch, self.out, self.pieces = (
            dataset,
            plan,
            encoder,
            batch,
            out,
            pieces,
        )
        self.cut = np.zeros(len(plan.first), dtype=bool)
        self.done = [number for number in range(len(plan.chunks)) if self.place(number).is_file()]
        for number in self.done:
            cut = pl.scan_parquet(self.place(number)).filter(pl.col("check") == "embed.caption_cut")
            self.cut[cut.select("caption").collect()["caption"].to_numpy()] = True

    def place(self, number: int) -> Path:
        """The findings of a chunk."""
        return self.pieces / f"captions-{number:06d}.parquet"

    def run(self) -> Iterator[int]:
        """Write all chunks that are not done; yields once for every caption that is encoded."""
        done = set(self.done)
        for number, (start, rows) in enumerate(self.plan.chunks):
            if number in done:
                continue
            texts = _read(self.dataset, start)
            vectors = caption_rows(self.out)
            yield from self._fill(vectors, rows, texts)
            if isinstance(vectors, np.memmap):
                vectors.flush()
            with storage.whole_file(self.place(number)) as temporary:
                caption_findings(rows.start, texts, self.cut[rows].tolist()).write_parquet(temporary)

    def _fill(self, vectors: npt.NDArray[np.float16], rows: slice, texts: list[str]) -> Iterator[int]:
        own = self.plan.own(rows)
        fresh = rows.start + np.flatnonzero(own)
        tokens = self.encoder.tokenize([texts[row - rows.start] for row in fresh])
        self.cut[fresh] = tokens.cut
        for places, some in self.encoder.encode_tokens(tokens.ids, self.batch):
            vectors[fresh[places]] = some.half().numpy()
            yield from places
        repeated = rows.start + np.flatnonzero(~own)
        vectors[repeated] = vectors[self.plan.first[repeated]]
        self.cut[repeated] = self.cut[self.plan.first[repeated]]
