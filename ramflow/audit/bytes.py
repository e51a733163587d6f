"""The bytes of one sample: those of the manifest, and an image by their first bytes and by their name."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from posixpath import splitext

from PIL import Image

Fault = tuple[str, str]
"""(check id, detail) of one thing that is wrong with a sample."""

HEAD = 1024
"""Bytes at the beginning that say what a file is."""

HTML = re.compile(rb"<!doctype\s+html|<html[\s>]|^\s*<(?:head|body|title|script|meta|h1|p|div|center)[\s>]", re.I)

BROKEN = tuple(
    (name, re.compile(b"(?s)" + start))
    for name, start in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n"),
        ("GIF", rb"GIF8[79]a"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("TIFF", rb"II\*\0|MM\0\*"),
        ("AVIF", rb".{4}ftypavi[fs]"),
        ("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    )
)
"""How formats begin that are decoded: a file that begins so and cannot be opened is damaged."""

OTHERS = tuple(
    (name, re.compile(b"(?is)" + start))
    for name, start in (
        ("an SVG drawing", rb".*<svg[\s>]"),
        ("XML", rb"\s*<\?xml\b"),
        ("JSON", rb'\s*(?:\{\s*["}]|\[\s*[{\["\]])'),
        ("a PDF document", rb"%PDF-"),
        ("a Photoshop document", rb"8BPS"),
        ("a PostScript drawing", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("an icon", rb"\0\0\x01\0"),
        ("a gzip file", rb"\x1f\x8b"),
        ("a zip archive", rb"PK\x03\x04"),
        ("a HEIC image", rb".{4}ftyp(?:hei|hev|mif1|msf1)"),
        ("a video", rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI "),
        ("a pointer of Git LFS", rb"version https://git-lfs"),
        ("nothing but zeros", rb"\0+$"),
    )
)
"""What else is found in place of images, and how it begins; the first that fits."""

OTHER_EXTENSIONS = {".heic": "HEIC", ".heif": "HEIC", ".svg": "SVG", ".htm": "HTML", ".html": "HTML"}


def against_manifest(data: bytes, length: int, sha256: str) -> list[Fault]:
    """The fault of bytes that are not the ``length`` bytes whose digest is ``sha256``, in hex."""
    if len(data) != length:
        return [("images.sha256_mismatch", f"{len(data)} bytes, not {length}")]
    found = hashlib.sha256(data).hexdigest()
    return [] if found == sha256 else [("images.sha256_mismatch", f"sha256 {found[:16]}..., not {sha256[:16]}...")]


def not_an_image(data: bytes) -> Fault:
    """What bytes are that cannot be opened as an image."""
    head = data[:HEAD]
    for name, start in BROKEN:
        if start.match(head):
            return "images.truncated", f"begins as {name}, but its header is cut off or damaged"
    text = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe")  # byte order marks; UTF-16 becomes ASCII
    if page := HTML.search(text):
        return "images.html", " ".join(text[page.start() :][:80].decode("ascii", "replace").split())
    for name, start in OTHERS:
        if start.match(head):
            return "images.not_an_image", name
    return "images.not_an_image", f"starts with {head[:16]!r}"


def extension(image_path: str, image_format: str) -> list[Fault]:
    """The fault of a name whose extension is that of another format; what is no known extension passes."""
    suffix = splitext(image_path)[1].lower()
    real = "JPEG" if image_format == "MPO" else image_format  # MPO is a JPEG with more pictures behind the first
    if _formats().get(suffix, real) in (real, image_format):
        return []
    return [("images.extension", f"{suffix} holds {real}")]


@cache
def _formats() -> dict[str, str]:
    return OTHER_EXTENSIONS | Image.registered_extensions()
