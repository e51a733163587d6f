"""Faults that every generated annotation file holds, a few of each kind that the audit of annotations knows."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

CAPTIONS = {
    "text.empty": "   ",
    "text.control_character": "a dog\u0007 on a sofa",
    "text.boilerplate": "a castle by the river <ref>IMG_2042.JPG</ref>",
    "text.long": " ".join(["a very long caption of a street"] * 6),
    "text.too_many_tokens": "order number " + "0123456789" * 8,
    "text.mojibake": "a cafÃ© in the old town",
    "text.not_utf8": "a street \udce9 at night",
}
"""Check: the faulty caption."""

RECORDS: dict[str, Record] = {
    "text.no_caption": {"caption": [], "parse_label_id": []},
    "tags.out_of_range": {"union_label_id": [1, 2, 100_000]},
    "tags.negative": {"union_label_id": [1, 2, -3]},
    "tags.duplicate_id": {"union_label_id": [1, 2, 2]},
    "tags.parse_misaligned": {"parse_label_id": [[1], [2], [1]]},
    "tags.parsed_not_in_union": {"parse_label_id": [[1], [3]]},
    "tags.no_union": {"union_label_id": [], "parse_label_id": [[], []]},
    "set.absolute_path": {"image_path": "/{folder}planted.jpg"},
    "set.duplicate_key": {},
}
"""Check: what is different in the faulty record."""

PLANTED = dict.fromkeys([*CAPTIONS, *RECORDS], 1)
"""Check: how many faults of it a file holds."""


def planted_records(folder: str, tags: int) -> list[Record]:
    """The faulty records of one file. The last one repeats the path of the one before."""
    result = []
    for number, (check, change) in enumerate({**{c: {} for c in CAPTIONS}, **RECORDS}.items()):
        record: Record = {
            "image_path": f"{folder}planted_{number}.jpg",
            "caption": ["a small dog on the table", CAPTIONS.get(check, f"a planted fault of {check}")],
            "union_label_id": [1, 2],
            "parse_label_id": [[1], [2]],
        }
        result.append({**record, **change})
        result[-1]["image_path"] = str(result[-1]["image_path"]).format(folder=folder)
    result[-1]["image_path"] = result[0]["image_path"]
    return result
