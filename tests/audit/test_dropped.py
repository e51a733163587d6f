"""Dropped tags in the audit: they keep their ids, are no errors, and are not counted as missing."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from ramflow.audit.tag_list import long_tail
from ramflow.data.dataset import Dataset
from ramflow.tag_lists.edit import drop
from ramflow.tags import TagTable, read_tags
from tests.conftest import TAGS

FULL = TagTable(list(TAGS), thresholds=[0.5] * 6, chinese=["圆", "方", "三角", "红", "蓝", "独角兽"],
                descriptions=[[f"a {name}", f"one {name}"] for name in TAGS])  # fmt: skip


@pytest.fixture
def table_of(tmp_path):
    def write(table):
        table.write(tmp_path / "given.csv")
        return tmp_path / "given.csv"

    return write


def test_a_packed_set_keeps_all_columns_but_counts(pack_records, records, table_of):
    table = drop(FULL, ["blue"])
    data = pack_records(records[:4], tags=table_of(table.with_counts([9] * 6, 2)))
    assert Dataset(data).tags == table
    plain = pack_records(records[:4])
    assert (plain / "tags.csv").read_text() == TagTable(list(TAGS)).csv()


def test_ids_of_dropped_tags_are_a_warning_and_ignored(audit, pack_records, records, table_of):
    records[0]["union_label_id"], records[0]["parse_label_id"] = [4], []  # nothing but a dropped tag
    done = audit(pack_records(records, tags=table_of(drop(FULL, ["blue"]))))
    with_blue = [n for n, r in enumerate(records) if 4 in r["union_label_id"]]
    assert done.failed() == {"tags.dropped", "tags.no_union"} and done.verdict.passed
    assert done.rows("tags.dropped") == [(f"train_{n:09d}", "ids 4") for n in with_blue]
    assert done.rows("tags.no_union") == [("train_000000000", "union_label_id has dropped tags only")]
    assert done.check("tags.dropped").severity == "warning" and done.quarantine.is_empty()
    assert done.table.status[4] == "dropped" and done.table.counts[4] == len(with_blue)
    assert done.verdict.metrics["dropped_tags"] == 1


def test_without_their_ids_dropped_tags_are_no_finding(audit_files, records, table_of):
    for record in records:
        for ids in (record["union_label_id"], *record["parse_label_id"]):
            ids[:] = [i for i in ids if i != 4]
    done = audit_files(records, tags=table_of(drop(FULL, ["blue"])))
    assert done.failed() == set() and done.table.status[4] == "dropped" and done.table.counts[4] == 0


def test_a_dropped_tag_is_not_missing_nor_rare_nor_a_duplicate(audit, pack_records, records, table_of):
    both = replace(FULL, names=[*TAGS[:5], "red"])
    done = audit(pack_records(records, tags=table_of(both)), max_missing_tags_share=0.0)
    assert [c.id for c in done.verdict.failures()] == ["tags.missing"]
    assert len(done.rows("tags.duplicate_name")) == 2
    done = audit(pack_records(records, tags=table_of(drop(both, ["id:5"]))), max_missing_tags_share=0.0, rare_below=99)
    assert done.verdict.passed and done.check("tags.missing").count == 0
    assert done.rows("tags.duplicate_name") == [] and done.check("tags.rare").count == 5


def test_the_status_table_keeps_chinese_and_leaves_descriptions_to_the_data(audit, pack_records, records, table_of):
    data = pack_records(records, tags=table_of(drop(FULL, ["unicorn"])))
    table = audit(data).table
    assert (table.chinese, table.thresholds, table.descriptions) == (FULL.chinese, FULL.thresholds, [])
    assert table.digest == read_tags(data / "tags.csv").digest == FULL.digest


def test_the_tail_is_that_of_tags_in_use():
    table = drop(TagTable(list("abcd")), ["b"]).with_counts([5, 100, 5, 0], 2)
    assert long_tail(table) == {"positives": 10, "most": 5, "median": 5, "tags_with_half": 1, "tags_with_90_percent": 2}


def test_parts_see_dropped_tags_as_one_machine_does(pack_records, records, table_of, tmp_path):
    from ramflow.audit.stage import run, run_part
    from ramflow.settings import AuditSettings

    data = pack_records(records, tags=table_of(drop(FULL, ["blue"])))
    settings = AuditSettings(workers=1)
    (tmp_path / "whole").mkdir()
    run(settings, data=data, out=tmp_path / "whole")
    (tmp_path / "part").mkdir()
    run_part(settings, data=data, out=tmp_path / "part", shard_range="0:1")
    whole = pl.read_parquet(tmp_path / "whole" / "findings.parquet").filter(pl.col("check") == "tags.dropped")
    files = sorted((tmp_path / "part").rglob("tags.dropped-*.parquet"))
    part = pl.concat([pl.read_parquet(file) for file in files])
    assert part["sample"].to_list() == whole["sample"].to_list()[: len(part)] != []
