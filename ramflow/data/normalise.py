"""Captions made alike: what differs only in case, punctuation, white space or the way Unicode writes it."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from functools import cache

ASCII = str.maketrans(string.punctuation, " " * len(string.punctuation))


def normalised(text: str) -> str:
    """NFKC, case folded, each run of punctuation and white space one space, none at the ends."""
    if text.isascii():
        return " ".join(text.lower().translate(ASCII).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_punctuation().sub(" ", folded).split())


@cache
def _punctuation() -> re.Pattern[str]:
    """ASCII's, and all that Unicode calls so (categories P*)."""
    others = (chr(code) for code in range(128, sys.maxunicode + 1))
    found = "".join(c for c in others if unicodedata.category(c).startswith("P"))
    return re.compile(f"[{re.escape(string.punctuation + found)}]")
