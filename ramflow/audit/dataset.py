"""Checks of the whole set: duplicate keys and images, leakage between splits, images that were not there (F45)."""

from __future__ import annotations

import polars as pl

from ramflow.audit.findings import found
from ramflow.data.dataset import SPLITS

OUTSIDE = r"^(?:[/\\]|[A-Za-z]:[/\\])|(?:^|[/\\])\.\.(?:[/\\]|$)"


def find(samples: pl.DataFrame, missing: pl.DataFrame) -> list[pl.DataFrame]:
    """Failures of every check of the set.

    Args:
        samples: the manifest with its column ``sample``.
        missing: records whose image was not found when packing.
    """
    outside = pl.col("image_path").str.contains(OUTSIDE)
    pictures = samples.filter(pl.col("length") > 0)
    split = pl.col("split").cast(pl.Enum(SPLITS)).to_physical()
    return [
        _repeated("set.duplicate_key", samples, "image_path"),
        found("set.absolute_path", samples.filter(outside), pl.lit("the path leaves the folder of images")),
        found("set.absolute_path", missing.filter(outside), pl.col("reason")),
        _repeated("set.duplicate_image", pictures, "split", "sha256"),
        _same_as("set.leakage", pictures.filter(split > split.min().over("sha256")), pictures, "sha256"),
        found("set.missing_image", missing, pl.col("reason")),
    ]


def _repeated(check: str, samples: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """All rows but the first of those that agree in ``columns``."""
    return _same_as(check, samples.filter(~pl.struct(columns).is_first_distinct()), samples, *columns)


def _same_as(check: str, rows: pl.DataFrame, samples: pl.DataFrame, *columns: str) -> pl.DataFrame:
    first = samples.unique(columns, keep="first", maintain_order=True).select(*columns, first="key", of="split")
    joined = rows.join(first, on=columns, suffix="_first", maintain_order="left")
    return found(check, joined, pl.format("the same as {} of {}", "first", "of"))
