"""Pieces of English-like captions: byte strings that numpy joins by number, as JSON writes them."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]
Seeds = npt.NDArray[np.uint64]

WORDS = {
    "adjective": """small large old young red green white black blue yellow wooden bright dark happy beautiful modern
        empty busy quiet colorful tall wet snowy sunny striped fluffy rusty ancient famous traditional""",
    "noun": """man woman boy girl child dog cat horse bird cow sheep elephant bear zebra giraffe table chair sofa bed
        desk lamp window door wall floor kitchen bathroom bedroom street road bridge river lake beach mountain
        forest tree flower garden field sky cloud sunset car bus train truck bicycle motorcycle boat airplane
        station airport building house church tower castle city market restaurant cake pizza sandwich apple
        banana orange salad coffee bottle glass plate bowl knife phone laptop keyboard book clock camera
        umbrella backpack suitcase tie hat shirt dress shoe kite ball bat racket surfboard skateboard snowboard
        player team crowd singer actor wedding birthday painting statue sign fence bench fountain""",
    "verb": """sitting standing walking running jumping playing eating drinking sleeping looking holding riding carrying
        waiting smiling talking working swimming flying parked covered filled surrounded decorated""",
    "preposition": "on in under near behind beside over along across against inside with",
}
ADVERBS = ("", " quietly", " together", " alone", " slowly", " happily")
DETERMINERS = ("a ", "the ", "two ", "one ")
TAILS = (
    " in black and white", " at night", " during the day", " on a white background", " in the background",
    " , vector art", " for the first time", " before the game",
) * 24 + (" at the café", " from the château", " with a piñata", " – a view of 東京")  # fmt: skip
"""One in fifty is not ASCII."""


class Pieces:
    """Byte strings side by side, each known by its number; a text is an array of numbers."""

    def __init__(self) -> None:
        self._strings: list[bytes] = [b""]

    def add(self, strings: list[str]) -> int:
        """Add strings as they stand in the file; returns the number of the first. Number 0 is the empty string."""
        first = len(self._strings)
        self._strings += [s.encode("ascii") for s in strings]
        return first

    def freeze(self) -> None:
        """Make the arrays that :meth:`join` reads."""
        self._data = np.frombuffer(b"".join(self._strings), dtype=np.uint8)
        self._lengths = np.array([len(s) for s in self._strings], dtype=np.int32)
        self._starts = np.cumsum(self._lengths, dtype=np.int32) - self._lengths

    def join(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        """The bytes of the pieces one after another, uint8."""
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths, dtype=np.int32)
        shift = np.repeat(self._starts[numbers] - (ends - lengths), lengths)
        shift += np.arange(len(shift), dtype=np.int32)
        return self._data[shift]


class Captions:
    """Captions of the form "a small dog sitting quietly on the table near a red car at night", by their seed."""

    SLOTS = 5

    def __init__(self, pieces: Pieces) -> None:
        words = {kind: text.split() for kind, text in WORDS.items()}
        things = product(DETERMINERS, words["adjective"], words["noun"])
        places = product(words["preposition"], DETERMINERS[:2], words["noun"])
        groups = [
            [f"{determiner}{adjective} {noun}" for determiner, adjective, noun in things],
            [f" {verb}{adverb}" for verb, adverb in product(words["verb"], ADVERBS)],
            [f" {preposition} {determiner}{noun}" for preposition, determiner, noun in places],
            list(TAILS),
        ]
        thing, action, place, tail = ((pieces.add([json.dumps(s)[1:-1] for s in g]), len(g)) for g in groups)
        self._slots = (thing, action, place, place, tail)

    def of(self, seeds: Seeds, shares: tuple[float, ...]) -> Numbers:
        """Numbers of pieces, int32 [captions, SLOTS]; the same seed gives the same caption.

        Args:
            seeds: uint64 [captions].
            shares: of the captions, those that have each of the parts after the first.
        """
        numbers = np.empty((len(seeds), self.SLOTS), dtype=np.int32)
        bits = seeds
        for slot, ((first, count), share) in enumerate(zip(self._slots, (1.0, *shares), strict=True)):
            bits = mix(bits)
            numbers[:, slot] = first + ((bits >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int32)
            if share < 1:
                numbers[(bits & np.uint64(0xFFFFFFFF)) >= np.uint64(share * 2**32), slot] = 0
        return numbers


def mix(values: Seeds) -> Seeds:
    """One round of splitmix64: well mixed bits of uint64 values."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
