"""What the audit left for training and scoring: the samples that are not quarantined, and the status of every tag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.tags import TagTable, read_tags

QUARANTINE_FILE = "quarantine.parquet"
TAG_STATUS_FILE = "tag_status.csv"
TAG_COUNTS_FILE = "tag_counts.parquet"


def usable_samples(dataset: Dataset, audit: Path, split: str) -> npt.NDArray[np.int64]:
    """Numbers of the samples of a split that the audit did not quarantine, in order.

    Raises:
        UserError: none is left.
    """
    samples = dataset.splits[split]
    skip = pl.read_parquet(audit / QUARANTINE_FILE, columns=["sample"])["sample"].to_numpy()
    usable = np.setdiff1d(np.arange(samples.start, samples.stop), skip, assume_unique=True)
    if not len(usable):
        raise UserError(f"{dataset.directory}: no usable image in the {split} split: pack one with {split}=FILE")
    return usable


def tag_status(dataset: Dataset, audit: Path) -> TagTable:
    """The tag table with counts and status.

    Raises:
        UserError: the audit was made with another tag list.
    """
    table = read_tags(audit / TAG_STATUS_FILE)
    if table.digest != dataset.tags.digest:
        raise UserError(f"{audit / TAG_STATUS_FILE} is of another tag list than {dataset.directory}: run audit again")
    return table
