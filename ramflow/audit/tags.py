"""Tag checks: ids against the tag list, parsed tags against captions and union, tags without images (F08, F09)."""

from __future__ import annotations

import polars as pl

from ramflow.audit.findings import FOUND_SCHEMA, found
from ramflow.tags import TagTable


def find_in_records(samples: pl.DataFrame, table: TagTable) -> list[pl.DataFrame]:
    """Failures of the checks of single records, at most one a record and check.

    Args:
        samples: the manifest with its column ``sample``.
        table: the tag list that the ids point into.
    """
    union, parsed = pl.col("union_tags"), pl.col("parsed_tags")
    union_ids = samples.select("sample", id=union).explode("id").drop_nulls()
    parsed_ids = samples.select("sample", id=parsed).explode("id").explode("id").drop_nulls()
    all_ids = pl.concat([union_ids, parsed_ids])
    with_repeats = samples.filter(union.list.n_unique() < union.list.len()).select("sample")
    repeated = union_ids.join(with_repeats, on="sample", how="semi").filter(pl.struct("sample", "id").is_duplicated())
    both = parsed_ids.group_by("sample").agg("id").join(samples.select("sample", "union_tags"), on="sample")
    lacking = both.select("sample", id=pl.col("id").list.set_difference(union)).explode("id").drop_nulls()
    lists, captions = parsed.list.len(), pl.col("captions").list.len()
    misaligned = samples.filter((lists > 0) & (lists != captions))
    both_counts = pl.format("{} lists of parsed tags for {} captions", lists, captions)
    beyond = f"ids {{}}; the last of the tag list is {len(table) - 1}"
    return [
        _listing("tags.out_of_range", samples, all_ids.filter(pl.col("id") >= len(table)), beyond),
        _listing("tags.negative", samples, all_ids.filter(pl.col("id") < 0), "ids {}"),
        _listing("tags.duplicate_id", samples, repeated, "ids {} in union_label_id"),
        found("tags.parse_misaligned", misaligned, both_counts),
        _listing("tags.parsed_not_in_union", samples, lacking, "ids {}"),
        found("tags.no_union", samples.filter(union.list.len() == 0), pl.lit("union_label_id is empty")),
    ]


def _listing(check: str, samples: pl.DataFrame, ids: pl.DataFrame, detail: str) -> pl.DataFrame:
    """A failure for every sample in ``ids`` (columns ``sample`` and ``id``); its ids take the place of ``{}``."""
    listed = ids.unique().sort("sample", "id").group_by("sample", maintain_order=True).agg("id")
    text = pl.col("id").cast(pl.List(pl.String)).list.join(", ")
    return found(check, listed.join(samples, on="sample", maintain_order="left"), pl.format(detail, text))


def count_positives(samples: pl.DataFrame, table: TagTable, rare_below: int) -> TagTable:
    """The tag list with the number of ``samples`` that have each tag, and the status that follows."""
    ids = samples.select(id=pl.col("union_tags").list.unique()).explode("id").drop_nulls()
    counted = dict(ids.group_by("id").len().iter_rows())
    return table.with_counts([counted.get(i, 0) for i in range(len(table))], rare_below)


def find_in_list(table: TagTable) -> list[pl.DataFrame]:
    """Failures of the checks of the tag list itself, once images are counted (see :func:`count_positives`)."""
    tags = list(zip(table.names, table.counts, table.status, strict=True))
    twice = set(table.duplicates())
    failures = [("tags.missing", name) for name, _, status in tags if status == "missing"]
    failures += [("tags.rare", f"{name}: {count} images") for name, count, status in tags if status == "rare"]
    failures += [("tags.duplicate_name", f"{name}: id {i}") for i, name in enumerate(table.names) if name in twice]
    rows = [(check, None, None, detail) for check, detail in failures]
    return [pl.DataFrame(rows, schema=FOUND_SCHEMA, orient="row")]
