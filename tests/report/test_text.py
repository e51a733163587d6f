import math

import pytest

from ramflow.report import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (4585, "4,585"),
        (0.31234, "0.312"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (0.0001, "1e-4"),
        (4.86e-4, "4.9e-4"),
        (0, "0"),
        (0.0, "0"),
        (None, "–"),
        (math.nan, "–"),
        ("bfloat16", "bfloat16"),
        (-0.5, "-0.500"),
        (3e9, "3,000,000,000"),
        (2.5e9 + 0.5, "2.5e9"),
    ],
)
def test_numbers_are_short_and_readable(value: object, shown: str) -> None:
    assert text.number(value) == shown


def test_a_ratio_needs_a_base_above_zero() -> None:
    assert text.times(0.31, 0.0218) == "14.2"
    assert text.times(0.31, 0.31) == "1.00"
    assert text.times(0.2, 0.4) == "0.50"
    assert text.times(0.31, 0.0) is text.times(0.31, None) is None


def test_sizes_names_and_plurals() -> None:
    assert [text.size(n) for n in (999, 4_812_904, 3_010_210_801)] == ["999 bytes", "4.8 MB", "3.0 GB"]
    assert text.names(["audit"]) == "audit"
    assert text.names(["audit", "embed", "verify"]) == "audit, embed and verify"
    assert text.plural(1, "tag") == "1 tag"
    assert text.plural(1204, "tag") == "1,204 tags"


def test_nested_settings_become_dotted_rows() -> None:
    found = text.rows({"epochs": 5, "head": {"layers": 2}, "flip": True, "mean": [0.5, 1], "words": ["x" * 300]})
    assert found[:4] == [("epochs", "5"), ("head.layers", "2"), ("flip", "yes"), ("mean", "0.500, 1")]
    assert len(found[4][1]) < 230 and "1 in all" in found[4][1]
