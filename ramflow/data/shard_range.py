"""Ranges of shards, by which machines share the work of pack and audit: ``FIRST:END``, END exclusive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ramflow.errors import UserError


def parse_range(text: str) -> range:
    """The shard numbers of ``FIRST:END``.

    Raises:
        UserError: it is no range, or an empty one.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard-range {text}: FIRST:END is expected, END exclusive, for example 0:64")
    return range(int(match[1]), int(match[2]))


def check_inside(shards: range, total: int) -> None:
    """See that a range is one of the ``total`` shards there are.

    Raises:
        UserError: it is not.
    """
    if shards.stop > total:
        raise UserError(f"--shard-range {shards.start}:{shards.stop}: the shards are 0:{total}")


def check_cover(parts: Sequence[tuple[Path, range]], total: int, verb: str) -> None:
    """See that parts are all of ``total`` shards, each once.

    Args:
        parts: folder and shards of each, in any order.
        total: shards there are.
        verb: what the user does to make a part that is lacking.

    Raises:
        UserError: shards are left out, or in two parts.
    """
    end, last = 0, None
    for folder, shards in [*sorted(parts, key=lambda part: (part[1].start, part[1].stop)), (None, range(total, total))]:
        if shards.start < end:
            both = f"{shards.start}:{min(end, shards.stop)}"
            raise UserError(f"shards {both} are in two parts, {last} and {folder}: leave one out")
        if shards.start > end:
            gap = f"{end}:{shards.start}"
            raise UserError(f"the parts leave out shards {gap}: {verb} them with --shard-range {gap}")
        end, last = shards.stop, folder
