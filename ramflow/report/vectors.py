"""What the page shows of embed and verify: the tag and caption vectors, and the encoder's weights."""

from __future__ import annotations

import json
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from ramflow.report.artifacts import Run, reading
from ramflow.report.text import rows, short, size

TAGS_FILE = "tags.safetensors"
METADATA_KEY = "ramflow"  # as ramflow.data.vectors writes it, which needs torch; the page does not
CAPTIONS_FILE = "captions.safetensors"
ATTESTATION_FILE = "attestation.json"
LEDGER = {
    "loaded": "loaded as they are",
    "converted": "loaded after a conversion",
    "expected_missing": "computed by the encoder",
    "unexpected": "of the file, not used",
}

FRESH = "_fresh"
"""How the names of figures of a fresh encoder end."""


@dataclass(frozen=True)
class EmbedPart:
    """Sizes of the vectors and the identity of their encoder, read without loading them."""

    tags: int
    descriptions: int
    width: int
    captions: int
    encoder: str


@dataclass(frozen=True)
class VerifyPart:
    """The attestation: where the weights come from, how many tensors went which way, what the probe saw.

    ``loaded`` counts the encoder's tensors that come from the file, ``unused`` those that stayed in it; ``known`` says
    which public file it is, where that is proved or named, ``interpolated`` what was changed when asked for. ``probe``
    has the name of a figure, its value, and that of a fresh encoder.
    """

    source: str
    bytes: str
    format: str
    digest: str
    known: str
    interpolated: list[str]
    encoder: str
    input: str
    loaded: int
    unused: int
    ledger: list[tuple[str, int]]
    probe: list[tuple[str, str, str]]


def embed_part(run: Run) -> EmbedPart:
    """Read the shapes of embed's artifacts.

    Raises:
        UserError: one is damaged.
    """
    with reading(run.paths["embed"] / TAGS_FILE), safe_open(run.paths["embed"] / TAGS_FILE, "numpy") as file:
        tags, descriptions, width = file.get_slice("embeddings").get_shape()
        encoder = json.loads(file.metadata()[METADATA_KEY])["encoder"]
        kind, weights = encoder["type"], short(encoder["weights"])
    with reading(run.paths["embed"] / CAPTIONS_FILE), safe_open(run.paths["embed"] / CAPTIONS_FILE, "numpy") as file:
        captions, _ = file.get_slice("vectors").get_shape()
    return EmbedPart(tags, descriptions, width, captions, f"{kind}, weights {weights}")


def verify_part(run: Run) -> VerifyPart:
    """Read the attestation.

    Raises:
        UserError: it is damaged.
    """
    content = run.json("verify", ATTESTATION_FILE)
    with reading(run.paths["verify"] / ATTESTATION_FILE):
        source, encoder = content["source"], content["encoder"]
        count = {key: _count(content["ledger"][key]) for key in LEDGER}
        count["unexpected"] += sum(content["ledger"]["other"].values())
        known = source["known"]
        return VerifyPart(
            source=str(source["file"]),
            bytes=size(int(source["bytes"])),
            format=str(source["format"]),
            digest=short(source["sha256"]),
            known=f"{known['name']} of {known['origin']}" if known else "",
            interpolated=list(content["ledger"]["interpolated"]),
            encoder=str(encoder["name"]),
            input=f"{encoder['image_size']} px, tokens {encoder['width']} wide",
            loaded=count["loaded"] + count["converted"],
            unused=count["unexpected"],
            ledger=[(label, count[key]) for key, label in LEDGER.items()],
            probe=_probe(dict(rows(content["probe"] or {}))),
        )


def _probe(figures: dict[str, str]) -> list[tuple[str, str, str]]:
    own = [name for name in figures if not name.endswith(FRESH) or name.removesuffix(FRESH) not in figures]
    return [(name.replace("_", " "), figures[name], figures.get(name + FRESH, "")) for name in own]


def _count(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else int(value)
