"""Annotation files with the proportions of the public 4M set, made up: ``python -m benchmarks.synthetic --out DIR``.

Five files with the public names, and their numbers of records, texts and tags; about their size; all 4585 tags with a
long tail, 144 of them without an image; about 600,000 captions of CC3M on several images. Written as ``json.dump``
writes, with a few faults of every kind planted in each file (``planted.json`` counts them). The same scale gives the
same bytes. At scale 1: 3.87 million records, 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.captions import Captions, Pieces, Seeds, mix
from benchmarks.planted import PLANTED, planted_records

Numbers = npt.NDArray[np.integer]

TAGS = 4585
TAGS_WITHOUT_IMAGE = 144
SHARED_CAPTIONS = 600_000
BLOCK = 1 << 14
TAG_FILE = "tags.txt"


@dataclass(frozen=True)
class Source:
    """One annotation file of the 4M set: how many it has of what, and how its texts are made."""

    stem: str
    folder: str
    records: int
    texts: int
    tags: int
    hosted_bytes: int
    parsed: int
    """Tags parsed from a text, on average."""
    shares: tuple[float, float, float, float]
    """Share of the captions that have a verb, a place, a second place, a tail."""
    shared: bool = False


SOURCES = (
    Source("coco_train_rmcocodev_ram", "coco/images/train2014/COCO_train2014_000", 113_000, 680_000, 3_200_000,
           142_482_759, 14, (1, 1, 0.9, 0.7)),
    Source("vg_ram", "visual-genome/VG_100K/", 100_000, 923_000, 2_700_000, 75_300_000, 3, (0.4, 0.5, 0, 0.05)),
    Source("sbu_ram", "sbu/images/", 849_000, 1_700_000, 7_600_000, 301_276_697, 4, (1, 1, 0.8, 0.7)),
    Source("cc3m_train_ram", "cc3m/train/", 2_800_000, 5_600_000, 28_200_000, 994_000_000, 4, (1, 1, 0.9, 0.6), True),
    Source("cc3m_val_ram", "cc3m/val/", 12_000, 26_000, 132_000, 4_550_000, 4, (1, 1, 0.5, 0.6)),
)  # fmt: skip


@dataclass(frozen=True)
class Annotations:
    """A generated set: its annotation files in the order of ``SOURCES``, its tag list, and what was planted."""

    directory: Path

    @property
    def files(self) -> list[Path]:
        """The five annotation files."""
        return [self.directory / f"{source.stem}.json" for source in SOURCES]

    @property
    def tags(self) -> Path:
        """The tag list."""
        return self.directory / TAG_FILE

    @property
    def bytes(self) -> int:
        """Size of the annotation files."""
        return sum(path.stat().st_size for path in self.files)

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Records a file (``records``) and planted rows a check (``planted``)."""
        return json.loads((self.directory / "planted.json").read_text(encoding="utf-8"))


def synthetic(directory: Path, scale: float) -> Annotations:
    """The set at ``scale`` below ``directory``, generated when it is not there yet."""
    result = Annotations(directory / f"annotations-{scale:g}")
    if not (result.directory / "planted.json").is_file():
        generate(result.directory, scale)
    return result


def generate(out: Path, scale: float) -> None:
    """Write the annotation files, the tag list and ``planted.json`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / TAG_FILE).write_text("\n".join(f"tag_{i:04d}" for i in range(TAGS)), encoding="ascii")
    writer = _Writer()
    counts = {}
    for number, source in enumerate(SOURCES):
        records = max(round(source.records * scale), 100)
        seeds = _text_seeds(source, number, round(source.texts * records / source.records), scale)
        with (out / f"{source.stem}.json").open("wb") as file:
            file.write(b"[")
            for first, text in writer.blocks(source, number, records, seeds):
                file.write(text)
                if first == 0:
                    planted = planted_records(source.folder, TAGS)
                    file.writelines(json.dumps(record).encode() + b", " for record in planted)
            file.seek(-2, 1)
            file.write(b"]")
            file.truncate()
        counts[source.stem] = records + len(planted)
    content = {"records": counts, "planted": {check: rows * len(SOURCES) for check, rows in PLANTED.items()}}
    (out / "planted.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _text_seeds(source: Source, number: int, texts: int, scale: float) -> Seeds:
    """A seed a caption, uint64 [texts]; equal seeds are equal captions."""
    seeds = mix(np.arange(texts, dtype=np.uint64) | np.uint64((number + 1) << 40))
    if source.shared:
        random = np.random.default_rng(number)
        uses = 1 + random.zipf(2.6, size=round(SHARED_CAPTIONS * scale)).clip(max=500)
        shared = np.repeat(np.arange(len(uses)), uses)[:texts]
        seeds[random.choice(texts, size=len(shared), replace=False)] = mix(shared.astype(np.uint64))
    return seeds


class _Writer:
    """Joins records of pieces: path, captions, tags and parsed tags, each piece a number."""

    def __init__(self) -> None:
        self._pieces = Pieces()
        add = self._pieces.add
        self._captions = Captions(self._pieces)
        self._digits = add([f"{i:03d}" for i in range(1000)])
        self._id, self._id_comma = add([str(i) for i in range(TAGS)]), add([f"{i}, " for i in range(TAGS)])
        self._paths = [add([f'{{"image_path": "{source.folder}']) for source in SOURCES]
        self._after_path, self._text_comma, self._after_texts = (
            add([s]) for s in ('.jpg", "caption": ["', '", "', '"], "union_label_id": [')
        )
        self._after_union, self._list_comma, self._end = (
            add([s]) for s in ('], "parse_label_id": [[', "], [", "]]}, ")
        )
        self._pieces.freeze()
        self._by_rank = np.random.default_rng(4).permutation(TAGS)[: TAGS - TAGS_WITHOUT_IMAGE].astype(np.int32)

    def blocks(self, source: Source, number: int, records: int, seeds: Seeds) -> Iterator[tuple[int, bytes]]:
        """The number of a block's first record and its bytes, each record followed by a comma."""
        bounds = np.arange(records + 1, dtype=np.int64) * len(seeds) // records
        for first in range(0, records, BLOCK):
            last = min(first + BLOCK, records)
            random = np.random.default_rng((number, first))
            texts = np.diff(bounds[first : last + 1])
            head = self._heads(number, first, last)
            captions = self._texts(source, texts, seeds[bounds[first] : bounds[last]])
            ids, sizes = self._unions(source, last - first, random, everything=first == 0)
            parts = [head, captions, self._lists(ids, sizes), self._parsed(source, texts, ids, sizes, random)]
            yield first, self._pieces.join(_interleave(parts, texts)).tobytes()

    def _heads(self, number: int, first: int, last: int) -> Numbers:
        """Pieces up to the first caption, [records, 5]; the numbers of the pictures are all different."""
        names = (np.arange(first, last) * 7_919 + 104_729) % 10**9
        columns = [np.full(last - first, self._paths[number])]
        columns += [self._digits + names // 10**power % 1000 for power in (6, 3, 0)]
        return np.column_stack([*columns, np.full(last - first, self._after_path)])

    def _texts(self, source: Source, texts: Numbers, seeds: Seeds) -> Numbers:
        """Pieces of the captions and what follows each, [texts, SLOTS + 1]."""
        close = np.full(len(seeds), self._text_comma)
        close[np.cumsum(texts) - 1] = self._after_texts
        return np.column_stack([self._captions.of(seeds, source.shares), close])

    def _unions(
        self, source: Source, records: int, random: np.random.Generator, *, everything: bool
    ) -> tuple[Numbers, Numbers]:
        """Tags of the records, [records, most], and how many of them count; ``everything``: each tag at least once.

        A record's n-th tag is drawn from every most-th tag in order of frequency, so that none is drawn twice.
        """
        mean = source.tags / source.records
        most = round(mean) + 3
        ids = np.empty((records, most), dtype=np.int32)
        for slot in range(most):
            tags = self._by_rank[slot::most]
            drawn = _long_tail(len(tags), records, random)
            if everything:
                drawn[: len(tags)] = np.arange(len(tags))[:records]
            ids[:, slot] = tags[drawn]
        sizes = np.floor(mean + random.random(records)).astype(np.int64) + random.integers(-2, 3, size=records)
        sizes = sizes.clip(1, most)
        if everything:
            sizes[: -(-len(self._by_rank) // most)] = most
        return ids, sizes

    def _lists(self, ids: Numbers, sizes: Numbers) -> Numbers:
        """Pieces of rows of tags, the first ``sizes`` of each, [rows, most + 1]; the last piece goes on after them."""
        place = np.arange(ids.shape[1])
        pieces = np.where(place < sizes[:, None] - 1, self._id_comma, self._id) + ids
        pieces[place >= sizes[:, None]] = 0
        return np.column_stack([pieces, np.full(len(ids), self._after_union)])

    def _parsed(
        self, source: Source, texts: Numbers, ids: Numbers, sizes: Numbers, random: np.random.Generator
    ) -> Numbers:
        """Pieces of the tags parsed from each text, some of the record's tags in a row, [texts, most + 1]."""
        record = np.repeat(np.arange(len(texts)), texts)
        of = sizes[record]
        count = np.minimum(random.integers(source.parsed - 2, source.parsed + 3, size=len(record)), of)
        place = random.integers(0, of)[:, None] + np.arange(source.parsed + 2)
        lists = self._lists(ids[record[:, None], place % of[:, None]], count)
        lists[:, -1] = self._list_comma
        lists[np.cumsum(texts) - 1, -1] = self._end
        return lists


def _long_tail(tags: int, size: int, random: np.random.Generator) -> Numbers:
    """``size`` draws of 0..tags-1, the rarest some 100,000 times rarer than the commonest."""
    rank = np.arange(tags)
    table = np.cumsum(np.exp(-6 * rank / tags) / (rank + 2))
    return np.searchsorted(table, random.random(size) * table[-1], side="right").clip(max=tags - 1)


def _interleave(parts: list[Numbers], texts: Numbers) -> npt.NDArray[np.int32]:
    """Put the parts of each record in a row: parts 0 and 2 have a row a record, 1 and 3 a row a text."""
    head, captions, union, parsed = parts
    fixed, by_text = head.shape[1] + union.shape[1], captions.shape[1] + parsed.shape[1]
    ends = np.cumsum(fixed + by_text * texts)
    start = ends - fixed - by_text * texts
    nth = np.arange(len(captions)) - np.repeat(np.cumsum(texts) - texts, texts)
    after_captions = start + head.shape[1] + captions.shape[1] * texts
    places = [
        start,
        np.repeat(start, texts) + head.shape[1] + captions.shape[1] * nth,
        after_captions,
        np.repeat(after_captions, texts) + union.shape[1] + parsed.shape[1] * nth,
    ]
    result = np.zeros(ends[-1], dtype=np.int32)
    for part, place in zip(parts, places, strict=True):
        result[place[:, None] + np.arange(part.shape[1])] = part
    return result


def main() -> None:
    """Generate a set and print its sizes beside those of the hosted files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=0.01)
    a = parser.parse_args()
    generate(a.out, a.scale)
    for path, source in zip(Annotations(a.out).files, SOURCES, strict=True):
        print(f"{path.name:32} {path.stat().st_size:13,} bytes, {source.hosted_bytes * a.scale:13,.0f} as hosted")


if __name__ == "__main__":
    main()
