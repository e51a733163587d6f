"""Reads the Debian packages openclipart-svg and openclipart-png.

The SVG files carry people's titles, descriptions and keywords as RDF metadata; the PNG files, at the same relative
paths, are the pictures. Nothing here knows of tags, splits or models.
"""

from __future__ import annotations

import hashlib
import html
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = 40_000_000  # a handful of drawings were rendered to more than 100 million pixels

_WORDS = re.compile(r"[^a-z0-9]+")
_METADATA = re.compile(r"<(?:\w+:)?metadata\b.*?</(?:\w+:)?metadata>", re.S)
_ITEM = re.compile(r"<(?:\w+:)?li\b[^>]*>([^<]*)<")
_LICENSE = re.compile(r"<(?:\w+:)?license\b[^>]*resource\s*=\s*[\"']([^\"']*)", re.I)


@dataclass(frozen=True)
class Picture:
    """One picture as its maker described it.

    path: relative to the package's folder, without suffix, for example "animals/birds/duck".
    title, description: as written, ends stripped; may be empty.
    keywords: distinct, lower case, "_" turned into " ", in the order written; empty strings left out.
    license: the licence's address, empty where the file names none.
    """

    path: str
    title: str
    description: str
    keywords: tuple[str, ...]
    license: str

    @property
    def captions(self) -> list[str]:
        """The title, and the description where there is one."""
        return [self.title, self.description] if self.description else [self.title]

    @property
    def free(self) -> bool:
        """False for the few pictures that name the GPL; the rest are dedicated to the public domain."""
        return "gpl" not in self.license.lower()


def normalise(text: str) -> str:
    """Lower case words joined by single spaces, everything else dropped."""
    return _WORDS.sub(" ", text.lower()).strip()


def clean_keywords(raw: list[str]) -> tuple[str, ...]:
    """Lower case, "_" to " ", without empty ones and repetitions."""
    words = (" ".join(html.unescape(word).lower().replace("_", " ").split()) for word in raw)
    return tuple(dict.fromkeys(word for word in words if word))


def _local(tag: object) -> str:
    return str(tag).rsplit("}", 1)[-1].lower()


def _from_xml(data: bytes) -> tuple[str, str, list[str], str]:
    root = ElementTree.fromstring(data)
    works = [node for node in root.iter() if _local(node.tag) == "work"]
    title = description = license_ = ""
    keywords: list[str] = []
    for child in (child for work in works for child in work):
        name, text = _local(child.tag), "".join(child.itertext()).strip()
        if name == "title":
            title = title or text
        elif name == "description":
            description = description or text
        elif name == "license":
            found = [value for key, value in child.attrib.items() if _local(key) == "resource"]
            license_ = license_ or (found[0] if found else text)
        elif name == "subject":
            items = [node.text or "" for node in child.iter() if _local(node.tag) == "li"]
            keywords += items or [text]
    return title, description, keywords, license_


def _from_text(data: bytes) -> tuple[str, str, list[str], str]:
    block = _METADATA.search(data.decode("utf-8", "replace"))
    text = block.group(0) if block else ""

    def first(name: str) -> str:
        found = re.search(rf"<(?:\w+:)?{name}\b[^>]*>([^<]*)<", text)
        return html.unescape(found.group(1)).strip() if found else ""

    license_ = _LICENSE.search(text)
    return first("title"), first("description"), _ITEM.findall(text), license_.group(1) if license_ else ""


def read_picture(svg: Path, path: str) -> Picture:
    """Read one SVG file's metadata: as XML, or by pattern where the file is not well formed."""
    data = svg.read_bytes()
    try:
        title, description, keywords, license_ = _from_xml(data)
    except ElementTree.ParseError:
        title, description, keywords, license_ = _from_text(data)
    return Picture(path, title, description, clean_keywords(keywords), license_)


def read_collection(root: Path) -> Iterator[Picture]:
    """Every picture that is there both as SVG and as PNG, ordered by path."""
    for svg in sorted((root / "svg").rglob("*.svg")):
        path = svg.relative_to(root / "svg").with_suffix("").as_posix()
        if png_file(root, path).is_file():
            yield read_picture(svg, path)


def png_file(root: Path, path: str) -> Path:
    """Where the PNG of a picture lies (`with_suffix` would cut names that hold a dot)."""
    return root / "png" / f"{path}.png"


def load_rgb(png: Path, long_side: int) -> Image.Image:
    """The picture on white, RGB, its long side at most `long_side` pixels (never enlarged)."""
    with Image.open(png) as image:
        picture = image.convert("RGBA")
    picture.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def difference_hash(image: Image.Image) -> str:
    """A 64-bit perceptual hash in hex: is a pixel of the 9 x 8 grey thumbnail brighter than its right neighbour?"""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, :-1] > grey[:, 1:]).ravel()
    return np.packbits(bits).tobytes().hex()


def fingerprint(png: Path) -> tuple[str, str] | None:
    """(sha256 of the file, difference hash), or None where it cannot be decoded or has over 40 million pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = load_rgb(png, 160)
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None
    return hashlib.sha256(png.read_bytes()).hexdigest(), difference_hash(picture)
