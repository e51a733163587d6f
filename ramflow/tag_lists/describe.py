"""What a tag table holds, for a person and as JSON."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ramflow.tag_lists.mapping import plural
from ramflow.tags import TagTable

COLUMNS = {
    "count": "counts",
    "status": "status",
    "threshold": "thresholds",
    "chinese": "chinese",
    "descriptions": "descriptions",
}


def describe(table: TagTable) -> dict[str, Any]:
    """Figures and digests of a table, its filled columns, dropped tags, and names that are hard to tell apart."""
    texts = sorted(map(len, table.descriptions))
    return {
        "tags": len(table),
        "digest": table.digest,
        "table_digest": table.table_digest,
        "columns": [column for column, name in COLUMNS.items() if getattr(table, name)],
        "dropped": [[i, table.names[i]] for i in table.dropped],
        "duplicates": {name: _ids_of(table, name) for name in table.duplicates()},
        "alike_but_for_case": alike(table),
        "descriptions": {"total": sum(texts), "fewest": texts[0], "most": texts[-1]} if texts else None,
    }


def _ids_of(table: TagTable, name: str) -> list[int]:
    return [i for i, other in enumerate(table.names) if other == name]


def alike(table: TagTable) -> list[list[str]]:
    """Groups of different names that are equal but for upper and lower case and spaces at their ends."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(table.names):
        groups[name.strip().casefold()].append(name)
    return [names for names in groups.values() if len(names) > 1]


def as_text(found: dict[str, Any]) -> str:
    """What :func:`describe` returned, a line a fact."""
    lines = [
        f"tags          {found['tags']}, {len(found['dropped'])} of them dropped",
        f"digest        {found['digest']} (names in order: equal digests mean equal ids)",
        f"table digest  {found['table_digest']} (every column)",
        f"columns       {', '.join(['id', 'name', *found['columns']])}",
    ]
    if texts := found["descriptions"]:
        lines.append(f"descriptions  {texts['total']}, {texts['fewest']} to {texts['most']} a tag")
    lines += [f"dropped       id {i} {name}" for i, name in found["dropped"]]
    lines += [f"duplicate     {name}: ids {', '.join(map(str, ids))}" for name, ids in found["duplicates"].items()]
    lines += [f"alike         {', '.join(map(repr, names))}" for names in found["alike_but_for_case"]]
    if found["duplicates"]:
        lines.append(f"{plural(len(found['duplicates']), 'name')} on several lines: scores by name are ambiguous")
    return "\n".join(lines)
