"""What a picture may be called: the tags of a model, or an open set of words encoded for this once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramflow.embed.descriptions import describe, read_descriptions
from ramflow.embed.encoder import TextEncoder
from ramflow.errors import UserError
from ramflow.progress import say
from ramflow.tags import TagTable, read_tags, status_of

TEXTS_AT_A_TIME = 256
FILE_ENDINGS = (".txt", ".json", ".tsv", ".csv")


@dataclass(frozen=True)
class Said:
    """A tag that is said of a picture; ``threshold`` is the score that it had to exceed, or would have had to."""

    id: int
    name: str
    chinese: str
    score: float
    threshold: float


class Vocabulary:
    """Names, and when each of them is said."""

    def __init__(self, table: TagTable, *, gated: bool = True, top: int | None = None) -> None:
        """Take over a table.

        Args:
            table: with thresholds; dropped tags are never said.
            gated: a tag is said when its score is above its threshold, as evaluate has it; if not, whatever its score.
            top: at most so many, the best.
        """
        assert table.thresholds
        self.table = table
        self._thresholds = np.array(table.thresholds)
        self._gates = self._thresholds if gated else np.full(len(table), -1.0)
        self._gates[table.dropped] = np.inf
        self._top = top

    def choose(self, scores: npt.NDArray[np.float32]) -> list[Said]:
        """What is said of a picture with these scores [tags], the best first."""
        said = np.flatnonzero(scores > self._gates)
        best = said[np.argsort(-scores[said], kind="stable")][: self._top].tolist()
        names, chinese = self.table.names, self.table.chinese
        return [
            Said(i, names[i], chinese[i].strip() if chinese else "", float(scores[i]), self.table.thresholds[i])
            for i in best
        ]


def with_table(own: TagTable, path: Path) -> TagTable:
    """The tags of a model with the thresholds and Chinese names of another table of the same list, where it has them.

    Raises:
        UserError: it cannot be read, or is of another list.
    """
    given = read_tags(path)
    if given.digest != own.digest:
        raise UserError(
            f"{path} is another tag list ({len(given)} tags, {given.digest[:19]}) than the model's ({len(own)} tags, "
            f"{own.digest[:19]}): see `ramflow tags diff`"
        )
    return TagTable(
        own.names,
        status=status_of(len(own), sorted({*own.dropped, *given.dropped})),
        thresholds=given.thresholds or own.thresholds,
        chinese=given.chinese or own.chinese,
    )


def read_words(text: str) -> tuple[TagTable, Path | None]:
    """Words as a table, and the file of their descriptions where it is one.

    Args:
        text: words between commas; or a file: a word a line, a tag table, or descriptions of any form that embed reads.

    Raises:
        UserError: no such file, or no words in it.
    """
    path = Path(text)
    if not os.path.isfile(text):
        if path.suffix.lower() in FILE_ENDINGS or os.path.isdir(text):
            raise UserError(f"--words {text}: no such file; give a file, or words between commas")
        return TagTable(_words(text.split(","), text)), None
    content = _text(path)
    if content.startswith("id,name"):
        return read_tags(path), None
    if path.suffix.lower() == ".json" or content.lstrip()[:1] in ("[", "{") or "\t" in content:
        return TagTable(_words(read_descriptions(path), text)), path
    return TagTable(_words(content.splitlines(), text)), None


def encode_words(
    table: TagTable, descriptions: Path | None, templates: Sequence[str], encoder: TextEncoder
) -> tuple[Tensor, Tensor]:
    """Unit vectors float32 [words, descriptions, width] of what is said of every word, and their mask.

    Raises:
        UserError: a word has no description.
    """
    own = describe(table, templates, descriptions).texts
    texts = list(chain.from_iterable(own))
    tokens = encoder.tokenize(texts)
    if cut := sum(tokens.cut):
        say(f"tag: {cut} of {len(texts)} texts are longer than the {encoder.limit} tokens that the encoder reads: cut")
    rows = torch.empty(len(texts), encoder.width)
    for places, vectors in encoder.encode_tokens(tokens.ids, TEXTS_AT_A_TIME):
        rows[places] = vectors
    most = max(map(len, own))
    mask = torch.zeros(len(own), most, dtype=torch.bool)
    embeddings = torch.zeros(len(own), most, encoder.width)
    for word, (some, vectors) in enumerate(zip(own, rows.split([len(some) for some in own]), strict=True)):
        mask[word, : len(some)] = torch.tensor([bool(text.strip()) for text in some])
        embeddings[word, : len(some)] = vectors
    return embeddings, mask


def _words(words: Sequence[str] | dict[str, list[str]], source: str) -> list[str]:
    """Each once, without white space around it."""
    found = list(words) if isinstance(words, dict) else list(dict.fromkeys(w for word in words if (w := word.strip())))
    if not found:
        raise UserError(f"--words {source!r}: there is no word in it")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
