"""Decides what goes into the sample: tags, splits, pictures, annotations, descriptions. Pure functions, no files."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from openclipart import Picture, normalise

SPLITS = {"train": 1350, "validation": 200, "test": 450}
QUOTAS = {"train": 6, "test": 3, "validation": 1}  # pictures a tag should have at least, where the collection has them
FED = 12  # pictures that must be left to every other tag when a tag's pictures are taken away
STAR_CAP, ICON_CAP, UNTAGGED_CAP = 40, 200, 40
TAG_COUNT, MISSING_COUNT, MISSING_RANGE = 150, 6, (13, 45)
STARS = {"magick"}
ICON_THEMES = {"hash", "theme", "lemon theme icon", "flat-theme", "gold-theme"}

# Keywords that are no visual or topical words: folders of the archive, theme categories, run-together codes, people's
# names, adverbs, and plurals or spellings of a word that is a tag already.
STOP = frozenset(
    """hash|theme|lemon theme icon|flat-theme|gold-theme|unsorted|special|11|openclipart|magick|action|application
    |filesystem|mimetypes|mime-types|mimeicon|appicon|miscellany|organizations|activities|place|states|stock|day|back
    |stop|go|simple|bordered|sudden|quick|fast|destroy|shot|explode|hole|bullet|gunshot|ideas|lovecraft
    |architetto francesco rollandin|signs and symbols|mapsym|map symbol|networksym|weathersym|musicsym|musicstuff
    |roadtravel|arrowshape|moon space|icons|symbols|shapes|arrows|flags|tools|desserts|games|logos|buttons|vehicles
    |transportation|northamerica|xmas|valentines|pc|tux|study""".replace("\n    ", "").split("|")
)

_BOILERPLATE = re.compile(
    r"^part of .*|^clipart by [^-]*-\s*|.*\bcollection\b.*|.*\btheme\b.*|.*\bgradient\b.*|.*hash\(0x.*|.*\S@\S.*"
    r"|.*https?:.*|^various cliparts$|^gramastar$|^etiquette icons$|^aiga.*|^svg road signs$|.*su[b]?mission.*",
    re.I | re.S,
)


def fraction(seed: int, salt: str, path: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed, the purpose and the path."""
    digest = hashlib.sha256(f"{seed}/{salt}/{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(seed: int, path: str) -> str:
    """The split a picture belongs to if it is chosen at all."""
    place, total = fraction(seed, "split", path) * sum(SPLITS.values()), 0
    for name, size in SPLITS.items():
        total += size
        if place < total:
            return name
    raise AssertionError("unreachable: fraction is below 1")


def candidates(pictures: Iterable[Picture], seed: int) -> list[Picture]:
    """Public-domain pictures, with the computed stars and the icon themes cut down to their caps."""
    left = {"star": STAR_CAP, "icon": ICON_CAP}
    kept = []
    for picture in sorted(pictures, key=lambda p: fraction(seed, "cap", p.path)):
        words = set(picture.keywords)
        kind = "star" if words & STARS else "icon" if words & ICON_THEMES else ""
        if not picture.free or left.get(kind, 1) <= 0:
            continue
        if kind:
            left[kind] -= 1
        kept.append(picture)
    return sorted(kept, key=lambda p: p.path)


def choose_tags(pictures: Sequence[Picture]) -> list[str]:
    """The most frequent keywords that are no stop words, alphabetically."""
    counts = Counter(word for p in pictures for word in p.keywords if word not in STOP and normalise(word) == word)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return sorted(ranked[:TAG_COUNT])


class Tagger:
    """Finds the tags of a picture: those among its keywords and those named in its texts as whole words."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.ids = {tag: index for index, tag in enumerate(tags)}

    def parse(self, text: str) -> list[int]:
        """Ids of the tags whose name occurs in the text as whole words, ascending."""
        padded = f" {normalise(text)} "
        return [index for tag, index in self.ids.items() if f" {tag} " in padded]

    def union(self, picture: Picture) -> list[int]:
        """Ids from keywords and texts together, ascending."""
        found = {self.ids[word] for word in picture.keywords if word in self.ids}
        return sorted(found.union(*(self.parse(text) for text in picture.captions)))

    def record(self, picture: Picture) -> dict[str, object]:
        """The picture as one record of upstream's annotation format."""
        return {
            "image_path": f"openclipart/{picture.path}.jpg",
            "caption": picture.captions,
            "union_label_id": self.union(picture),
            "parse_label_id": [self.parse(text) for text in picture.captions],
        }


def choose_missing(tags: Sequence[str], labels: dict[str, list[int]], seed: int) -> list[int]:
    """Tags of middling frequency that shall have no picture, as dead links would do.

    A tag is passed over where leaving out its pictures would starve another one.
    """
    counts = Counter(index for ids in labels.values() for index in ids)
    low, high = MISSING_RANGE
    middling = [index for index in range(len(tags)) if low <= counts[index] <= high]
    missing: list[int] = []
    for index in random.Random(seed).sample(middling, len(middling)):
        gone = {*missing, index}
        left = Counter(other for ids in labels.values() if not gone & set(ids) for other in ids)
        if all(left[other] >= min(counts[other], FED) for other in range(len(tags)) if other not in gone):
            missing.append(index)
        if len(missing) == MISSING_COUNT:
            break
    return sorted(missing)


def choose_pictures(labels: dict[str, list[int]], missing: Sequence[int], seed: int) -> dict[str, list[str]]:
    """Paths a split: first what every tag's quota needs, rarest tags first, then by hash until the split is full."""
    usable = sorted(path for path, ids in labels.items() if not set(ids) & set(missing))
    usable.sort(key=lambda path: fraction(seed, "order", path))
    by_tag: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path in usable:
        for index in labels[path]:
            by_tag[split_of(seed, path), index].append(path)
    chosen: dict[str, None] = {}
    for (split, _), paths in sorted(by_tag.items(), key=lambda item: (len(item[1]), item[0])):
        short = QUOTAS[split] - sum(path in chosen for path in paths)
        chosen.update(dict.fromkeys([path for path in paths if path not in chosen][: max(short, 0)]))
    return _fill(usable, list(chosen), labels, seed)


def _fill(usable: list[str], first: list[str], labels: dict[str, list[int]], seed: int) -> dict[str, list[str]]:
    room, untagged = dict(SPLITS), UNTAGGED_CAP
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in dict.fromkeys([*first, *usable]):
        split = split_of(seed, path)
        if room[split] <= 0 or (not labels[path] and untagged <= 0):
            continue
        untagged -= not labels[path]
        room[split] -= 1
        result[split].append(path)
    return {split: sorted(paths) for split, paths in result.items()}


def describe(tag: str, pictures: Sequence[Picture], seed: int) -> list[str]:
    """2 to 8 texts for a tag: row 0 as upstream has it, real titles and keyword phrases, a template or two."""
    draw = random.Random(f"{seed}/{tag}")
    total, templates = draw.randint(2, 8), [f"clip art of {tag}.", f"a simple drawing that shows {tag}."]
    real: dict[str, None] = {}
    for picture in draw.sample(pictures, len(pictures)):
        title = clean_title(picture.title)
        others = [word for word in picture.keywords if word not in STOP and word != tag and "0x" not in word][:3]
        for text in [title, ", ".join([tag, *others]) if others else ""]:
            if len(text) > 3 and normalise(text) != tag:
                real.setdefault(text)
    tail = templates[: 1 if total < 6 else 2]
    return [f"a photo of a {tag}.", *list(real)[: total - 1 - len(tail)], *tail]


def clean_title(title: str) -> str:
    """The title without collection names, addresses and serial numbers; empty where nothing is left."""
    text = re.sub(r"^clipart by [^-]*-\s*", "", title.strip(), flags=re.I)
    if _BOILERPLATE.match(text):
        return ""
    return normalise(re.sub(r"[\d_]+", " ", text))[:80]
