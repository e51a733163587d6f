"""Seeded faults in the tags; and counts and status of every tag, the list never re-numbered."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import polars as pl
import pytest

from ramflow.audit import tags as checked
from ramflow.audit.records import Ids
from ramflow.audit.tags import compare
from tests.conftest import TAGS


@pytest.mark.parametrize(
    ("check", "change", "detail"),
    [
        ("tags.out_of_range", {"union_label_id": [0, 3, 6, 99], "parse_label_id": []}, "ids 6, 99; the last of the"),
        ("tags.negative", {"union_label_id": [0, 3, -1], "parse_label_id": []}, "ids -1"),
        ("tags.duplicate_id", {"union_label_id": [3, 0, 3, 0, 3]}, "ids 0, 3 in union_label_id"),
        ("tags.parse_misaligned", {"parse_label_id": [[0, 3]]}, "1 lists of parsed tags for 2 captions"),
        ("tags.parse_misaligned", {"parse_label_id": [[0], [3], []]}, "3 lists of parsed tags for 2 captions"),
        ("tags.parsed_not_in_union", {"parse_label_id": [[0, 4], [2]]}, "ids 2, 4"),
        ("tags.no_union", {"union_label_id": [], "parse_label_id": []}, "union_label_id is empty"),
    ],
)
def test_a_fault_is_found_and_nothing_else(audit, pack_records, records, check, change, detail):
    records[6] |= change  # a red circle: ids 0 and 3
    done = audit(pack_records(records))
    assert done.failed() == {check}
    [(key, said)] = done.rows(check)
    assert key == "train_000000006" and said.startswith(detail)
    found = done.check(check)
    stops = check in ("tags.out_of_range", "tags.negative")
    assert (found.count, found.total, found.severity) == (1, 24, "error" if stops else "warning")
    assert done.verdict.passed is not stops
    assert done.quarantine["sample"].to_list() == ([6] if stops else [])


def test_ids_out_of_the_list_are_found_among_the_parsed_tags_too(audit, pack_records, records):
    records[2]["parse_label_id"] = [[-7], [0, 6]]
    done = audit(pack_records(records))
    assert done.failed() == {"tags.out_of_range", "tags.negative", "tags.parsed_not_in_union"}
    assert done.quarantine.select("sample", "check").rows() == [(2, "tags.out_of_range")]


def test_records_may_lack_parsed_tags(audit, pack_records, records):
    for record in records:
        record["parse_label_id"] = []
    records[0]["parse_label_id"] = [[], []]
    assert audit(pack_records(records)).failed() == set()


def test_positives_are_those_of_train_after_quarantine(audit, pack_records, records, copy_of, images_dir):
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).write_bytes(b"")  # a red circle
    records[1]["union_label_id"] += [17]  # a blue circle
    records[2]["union_label_id"] = [1, 3, 1, 3]  # counts once
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images))
    expected = Counter(i for r in records[2:12] for i in set(r["union_label_id"]))
    assert done.table.counts == [expected[i] for i in range(6)] == [2, 4, 4, 5, 5, 0]
    assert done.verdict.metrics["quarantined"] == 2 and done.verdict.metrics["unusable"] == 1


def test_every_tag_keeps_its_id_and_gets_a_status(audit, pack_records, records):
    for record in records:
        record["union_label_id"] = [i for i in record["union_label_id"] if i != 1]
        record["parse_label_id"] = []
    done = audit(pack_records(records[:5]), rare_below=3, max_missing_tags_share=0.5)
    assert done.table.names == list(TAGS)
    assert done.table.status == ["rare", "missing", "rare", "present", "rare", "missing"]
    assert done.check("tags.missing").examples == ["square", "unicorn"]
    assert [d for _, d in done.rows("tags.rare")] == ["blue: 2 images", "circle: 2 images", "triangle: 1 images"]
    assert (done.verdict.metrics["missing_tags"], done.verdict.metrics["rare_tags"]) == (2, 3)


def test_missing_tags_warn_up_to_the_share_and_stop_above(audit, tiny_data):
    below = audit(tiny_data, max_missing_tags_share=1 / 6)
    assert below.verdict.passed
    warning = below.check("tags.missing")
    assert (warning.severity, warning.count, warning.total, warning.passed) == ("warning", 1, 6, False)
    above = audit(tiny_data, max_missing_tags_share=0.16)
    assert [f.id for f in above.verdict.failures()] == ["tags.missing"]
    assert above.findings.filter(pl.col("check") == "tags.missing")["severity"].to_list() == ["error"]
    for word in ("1 of 6 tags", "findings.parquet", "tag_status.csv", "audit.max_missing_tags_share"):
        assert word in above.check("tags.missing").message


def test_names_that_stand_twice_in_the_list_are_found(audit, pack_records, records, tmp_path):
    tags = tmp_path / "tags.txt"
    tags.write_text("circle\nsquare\ntriangle\nred\nblue\nred", encoding="utf-8")
    done = audit(pack_records(records, tags=tags))
    assert done.failed() == {"tags.duplicate_name"}
    assert [d for _, d in done.rows("tags.duplicate_name")] == ["red: id 3", "red: id 5"]
    assert done.table.counts[3] == 12 and done.table.counts[5] == 0


def test_findings_agree_with_a_plain_loop_on_random_records(audit, pack_records, records):
    chance = random.Random(0)
    for record in records:
        record["union_label_id"] = [chance.randrange(-1, 8) for _ in range(chance.randrange(5))]
        record["parse_label_id"] = [
            [chance.randrange(-1, 8) for _ in range(chance.randrange(3))] for _ in range(chance.randrange(4))
        ]
    done = audit(pack_records(records))

    def expected(fails) -> list[str]:
        return [f"train_{n:09d}" for n, record in enumerate(records) if fails(record)]

    def union(r):
        return r["union_label_id"]

    def parsed(r):
        return [i for some in r["parse_label_id"] for i in some]

    rules = {
        "tags.out_of_range": lambda r: any(i >= 6 for i in union(r) + parsed(r)),
        "tags.negative": lambda r: any(i < 0 for i in union(r) + parsed(r)),
        "tags.duplicate_id": lambda r: len(set(union(r))) < len(union(r)),
        "tags.parse_misaligned": lambda r: len(r["parse_label_id"]) not in (0, len(r["caption"])),
        "tags.parsed_not_in_union": lambda r: not set(parsed(r)) <= set(union(r)),
        "tags.no_union": lambda r: not union(r),
    }
    for check, fails in rules.items():
        assert [key for key, _ in done.rows(check)] == expected(fails) != [], check


@pytest.mark.parametrize("tags", [7, 300, 5000])
def test_the_table_and_the_sort_find_the_same(tags, monkeypatch):
    """Ids inside the list are compared in a table of some records at a time, others by sorting."""
    random_numbers = np.random.default_rng(0)
    rows = np.sort(random_numbers.integers(0, 900, 6000))
    union = Ids(rows, random_numbers.integers(0, tags, 6000))
    parsed = Ids(np.sort(random_numbers.integers(0, 900, 4000)), random_numbers.integers(0, tags, 4000))
    monkeypatch.setattr(checked, "TABLE", 1000)
    repeated, lacking = compare(union, parsed, 900, tags)
    _, lacking_sorted = compare(union, Ids(np.append(parsed.rows, 899), np.append(parsed.ids, -1)), 900, tags)
    assert lacking.tolist() == lacking_sorted[:-1].tolist() and lacking_sorted[-1]
    own = [set(union.ids[union.rows == n].tolist()) for n in range(900)]
    assert lacking.tolist() == [i not in own[n] for n, i in zip(*parsed, strict=True)]
    kept = list(zip(union.rows[~repeated], union.ids[~repeated], strict=True))
    assert len(set(kept)) == len(kept) == sum(map(len, own))
