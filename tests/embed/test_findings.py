"""Every failing text is a row: empty, repeated, broken off, too long; sound ones are none."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest

from ramflow.embed.descriptions import Described, read_descriptions
from ramflow.embed.findings import (
    SCHEMA,
    caption_findings,
    description_findings,
    text_checks,
    truncated,
    write_findings,
)
from tests.embed.test_descriptions import PUBLIC

WHOLE = [
    "a photo of a {}.",
    "a horse with a horn",
    "turks and caicos",
    "Eiffel Tower",
    "It is large. It is grey!",
    "He calls it a “moon cake.”",
    "What is it?  ",
    "- It is round.\n- It is red.",
    "圆形。",
    "animal, insect",
]
BROKEN = [
    "Aerial photography captures images of landscapes, human-made structures,",
    "It is large. It often has a",
    "1. It is large.\n2. It is grey.\n\n3.",
    "1. F",
    "- It is round.\n- It is re",
    "-It has a long",
    "It is often sleek, aer",
    "圆形。它是",
]


@pytest.mark.parametrize("text", WHOLE)
def test_texts_with_an_end_are_whole(text):
    assert not truncated(text)


@pytest.mark.parametrize("text", BROKEN)
def test_texts_that_break_off_are_found(text):
    assert truncated(text)


def test_every_failing_description_is_a_row():
    described = Described([["", "x y", "x y", "It is. But"], ["x y", "long"]], ["other"])
    rows = description_findings(described, ["a", "b"], {"long"}).rows()
    assert rows == [
        ("embed.unknown_tag", None, "other", None, None, ""),
        ("embed.description_empty", 0, "a", 0, None, ""),
        ("embed.description_repeated", 0, "a", 2, None, "x y"),
        ("embed.description_truncated", 0, "a", 3, None, "It is. But"),
        ("embed.description_cut", 1, "b", 1, None, "long"),
    ]


def test_captions_are_numbered_by_row():
    rows = caption_findings(10, ["a", " ", "long"], [False, False, True]).rows()
    assert [row[0:1] + row[4:] for row in rows] == [("embed.caption_empty", 11, " "), ("embed.caption_cut", 12, "long")]


def test_checks_count_what_the_file_holds(tmp_path):
    described = Described([["a", "a"], ["b"]], [])
    for number, rows in enumerate(
        (description_findings(described, ["a", "b"], set()), caption_findings(0, [""] * 20, [False] * 20))
    ):
        rows.write_parquet(tmp_path / f"{number}.parquet")
    write_findings(tmp_path / "findings.parquet", [tmp_path / "0.parquet", tmp_path / "1.parquet"])
    assert len(pl.read_parquet(tmp_path / "findings.parquet")) == 21
    checks = {check.id: check for check in text_checks(tmp_path / "findings.parquet", described, 30, 77)}
    assert [(c.id, c.count, c.total) for c in checks.values() if not c.passed] == [
        ("embed.description_repeated", 1, 3),
        ("embed.caption_empty", 20, 30),
        ("embed.descriptions_uneven", 1, 2),
    ]
    assert (
        checks["embed.caption_empty"].examples[:2] == ["row 0: ", "row 1: "]
        and len(checks["embed.caption_empty"].examples) == 10
    )
    assert (
        checks["embed.description_cut"].message
        == "0 of 3 descriptions are longer than the encoder's 77 tokens and were cut"
    )


def test_no_finding_is_a_table_without_rows():
    assert dict(caption_findings(0, ["a"], [False]).schema) == SCHEMA


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the reference folder is not beside the repository")
def test_53_percent_of_the_public_rare_tags_descriptions_break_off():
    """A full stop, question or exclamation mark at the end is missing from 5,423 of 10,200; 31 end in a bare "3."."""
    described = read_descriptions(PUBLIC / "openimages_rare_200_llm_tag_descriptions.json")
    rows = description_findings(Described(list(described.values()), []), list(described), set())
    found = Counter(rows["check"].to_list())
    assert found["embed.description_truncated"] / 10_200 == pytest.approx(0.535, abs=0.002)
    assert (found["embed.description_repeated"], found["embed.description_empty"]) == (13, 0)
