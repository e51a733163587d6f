"""Ranges of shards: what is none, and parts that are not all shards, each once, are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramflow.data.shard_range import check_cover, check_inside, parse_range
from ramflow.errors import UserError

PARTS = [(Path("b"), range(2, 5)), (Path("a"), range(2)), (Path("c"), range(5, 6))]


def test_a_range_is_first_and_end():
    assert parse_range("0:64") == range(64)
    check_inside(range(3, 6), 6)


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "3:3", "4:3", "-1:3", "0:1:2", "a:b", "0-3"])
def test_what_is_no_range_is_one_line(text):
    with pytest.raises(UserError, match=f"^--shard-range {text}: FIRST:END is expected"):
        parse_range(text)


def test_a_range_outside_is_one_line():
    with pytest.raises(UserError, match=r"^--shard-range 3:7: the shards are 0:6"):
        check_inside(range(3, 7), 6)


def test_parts_in_any_order_are_all_shards():
    check_cover(PARTS, 6, "pack")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (PARTS[:2], "the parts leave out shards 5:6: pack them with --shard-range 5:6"),
        (PARTS[1:], "the parts leave out shards 2:5: pack them"),
        (PARTS[::2], "the parts leave out shards 0:2: pack them"),
        ([], "the parts leave out shards 0:6: pack them"),
        ([*PARTS, (Path("d"), range(1, 3))], "shards 1:2 are in two parts, a and d: leave one out"),
        ([*PARTS, PARTS[0]], "shards 2:5 are in two parts, b and b: leave one out"),
        ([(Path("all"), range(6)), (Path("in"), range(2, 3))], "shards 2:3 are in two parts, all and in"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, says):
    with pytest.raises(UserError, match=f"^{says}"):
        check_cover(parts, 6, "pack")
