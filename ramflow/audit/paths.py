"""Paths of images: one that is absolute, or leaves the folder of images, ignores the folder given (F45)."""

from __future__ import annotations

import polars as pl

from ramflow.audit.findings import faults
from ramflow.data.annotations import OUTSIDE


def find(paths: pl.Series) -> pl.DataFrame:
    """Records of a unit whose path, of ``paths``, leaves the folder of images (``FAULT_SCHEMA``)."""
    outside = paths.str.contains(OUTSIDE).arg_true()
    return faults("set.absolute_path", outside, "the path leaves the folder of images")
