"""The quarantine: samples that training and scoring skip, each with the first check that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.audit.checks import KINDS, QUARANTINING
from ramflow.audit.findings import ROW_GROUP, Findings
from ramflow.audit.whole import Samples, Whole

SCHEMA = {"sample": pl.Int64, "key": pl.String, "split": pl.String, "image_path": pl.String, "check": pl.String}
FREE = len(KINDS)


class Quarantine:
    """One byte a sample: the number in ``KINDS`` of the first check that quarantines it."""

    def __init__(self, findings: Findings, samples: int) -> None:
        """Read off the ``findings`` which of so many samples are quarantined."""
        self._first = np.full(samples, FREE, dtype=np.uint8)
        for number, kind in reversed(list(enumerate(KINDS))):
            if kind.id in QUARANTINING:
                self._first[findings.samples(kind.id)] = number

    def __len__(self) -> int:
        return int(np.count_nonzero(self._first != FREE))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether each sample is quarantined."""
        return self._first != FREE

    def write(self, path: Path, whole: Whole, work: Path) -> None:
        """Write a row a quarantined sample (``SCHEMA``), in order of samples."""
        names = pl.Series("check", [kind.id for kind in KINDS])
        pieces: list[Path] = []
        work.mkdir(parents=True, exist_ok=True)
        for chunk in whole.chunks:
            samples: Samples = chunk.first + np.flatnonzero(self.mask[chunk.first : chunk.first + chunk.rows])
            if len(samples):
                rows = whole.described(chunk, samples)
                rows = rows.with_columns(split=whole.splits(samples), check=names.gather(self._first[samples]))
                pieces.append(work / f"quarantine-{len(pieces):06d}.parquet")
                rows.select(*SCHEMA).write_parquet(pieces[-1], compression="lz4", statistics=False)
        if pieces:
            pl.scan_parquet(pieces).sink_parquet(path, row_group_size=ROW_GROUP, maintain_order=True)
        else:
            pl.DataFrame(schema=SCHEMA).write_parquet(path)
