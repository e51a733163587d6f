"""Numbers, names and digests as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NONE = "\N{EN DASH}"
LONGEST = 200


def number(value: object) -> str:
    """A number for people: ``4,585``, ``0.312``, ``12.3``, ``3.1e-05``; an en dash for what is not there."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NONE if value is None else str(value)
    if not math.isfinite(value):
        return NONE
    if isinstance(value, int) or value == 0 or (abs(value) >= 1000 and value == int(value)):
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return _short_exponent(f"{value:.1e}")
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}" if size >= 1 else f"{value:.3f}"


def score(value: float | None) -> str:
    """An average precision, precision, recall or F1: three decimals."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.3f}"


def times(value: float, base: float | None) -> str | None:
    """How many times ``base`` a value is, such as ``14.2``; None where that cannot be said."""
    if base is None or not math.isfinite(base) or base <= 0:
        return None
    ratio = value / base
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 1.05 else f"{ratio:.2f}"


def size(count: int) -> str:
    """Bytes in the unit that suits them: ``3.4 MB``."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 tag``, ``1,204 tags``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def names(items: list[str]) -> str:
    """``audit``, ``audit and embed``, ``audit, embed and verify``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def short(digest: str) -> str:
    """The first twelve figures of a ``sha256:...``."""
    return digest.removeprefix("sha256:")[:12]


def rows(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Key and text of everything in nested metrics or settings, keys joined by dots, long lists cut."""
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            found += rows(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", _plain(value)))
    return found


def _plain(value: object) -> str:
    if isinstance(value, list):
        text = ", ".join(_plain(item) for item in value)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}\N{HORIZONTAL ELLIPSIS} ({len(value):,} in all)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def _short_exponent(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
