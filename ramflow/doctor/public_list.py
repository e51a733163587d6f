"""The public tag list of 4585 names, as short hashes of its names: enough to recognise a list that was made from it.

``python -m ramflow.doctor.public_list ram_tag_list.txt`` writes ``public_hashes.py`` from the list itself.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from functools import cache
from pathlib import Path

from ramflow.doctor.public_hashes import HASHES
from ramflow.tags import read_tags

HASH_BYTES = 4
LINE = 116


def name_hash(name: str) -> str:
    """Eight hex digits of the sha256 of a name: two of 4585 names share one with probability 0.002, and none do."""
    return hashlib.sha256(name.encode()).hexdigest()[: 2 * HASH_BYTES]


@cache
def public_hashes() -> list[str]:
    """Hashes of the public list's names, by id."""
    data = base64.b85decode("".join(HASHES))
    return [data[i : i + HASH_BYTES].hex() for i in range(0, len(data), HASH_BYTES)]


def write_hashes(names: list[str], path: Path) -> None:
    """Write the module that :func:`public_hashes` reads."""
    text = base64.b85encode(bytes.fromhex("".join(map(name_hash, names)))).decode()
    lines = [f'    "{text[i : i + LINE]}",' for i in range(0, len(text), LINE)]
    head = '"""Hashes of the public tag list, written by ``ramflow.doctor.public_list``."""\n\nHASHES = (\n'
    path.write_text(head + "\n".join(lines) + "\n)\n", encoding="utf-8")


if __name__ == "__main__":
    write_hashes(read_tags(Path(sys.argv[1])).names, Path(__file__).with_name("public_hashes.py"))
