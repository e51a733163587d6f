"""Public weights files: what their names promise, and the sizes and digests that prove it.

A digest stands here only where its publisher states it: the pointer that a Hugging Face repository keeps for a large
file holds the size and the sha256. GitHub releases of 2021 state neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramflow.errors import UserError


@dataclass(frozen=True)
class KnownFile:
    """A public file: its name, where it is from, what it is, and size in bytes and sha256 where they are known."""

    name: str
    origin: str
    family: str
    encoder: str
    bytes: int | None = None
    sha256: str | None = None
    remark: str = ""


_SWIN = "github.com/SwinTransformer/storage, release v1.0.0"
_RAM = "huggingface.co/xinyu1205"
LARGE_224, LARGE_384 = "swin_large_patch4_window7_224", "swin_large_patch4_window12_384"
BASE_224, BASE_384 = "swin_base_patch4_window7_224", "swin_base_patch4_window12_384"

KNOWN = (
    *(
        KnownFile(f"{encoder}_{data}.pth", _SWIN, "microsoft", encoder, remark=remark)
        for encoder in (LARGE_224, LARGE_384, BASE_224, BASE_384)
        for data, remark in (("22k", "ImageNet-22k"), ("22kto1k", "ImageNet-22k, then ImageNet-1k"))
    ),
    KnownFile("ram_plus_swin_large_14m.pth", f"{_RAM}/recognize-anything-plus-model", "ram++", LARGE_384, 3010210801,
              "497c178836ba66698ca226c7895317e6e800034be986452dbd2593298d50e87d", "RAM++, 384 px, with its optimiser"),
    KnownFile("ram_swin_large_14m.pth", f"{_RAM}/recognize_anything_model", "ram", LARGE_384, 5625634877,
              "15c729c793af28b9d107c69f85836a1356d76ea830d4714699fb62e55fcc08ed", "RAM, 384 px"),
    KnownFile("tag2text_swin_14m.pth", f"{_RAM}/recognize_anything_model", "tag2text", BASE_384, 4478705095,
              "4ce96f0ce98f940a6680d567f66a38ccc9ca8c4e638e5f5c5c2e881a0e3502ac", "Tag2Text, 384 px"),
    KnownFile("tag2text_swin_14m.pth", "huggingface.co/spaces/xinyu1205/recognize-anything, its first upload",
              "tag2text", BASE_384, None, "9ac35ee5e3fe63e53f400f0db1c0000b93632d4cf0f3b681edde30734ef1941d",
              "Tag2Text, 384 px, replaced later"),
    KnownFile("pytorch_model.bin", "huggingface.co/microsoft/swin-base-patch4-window7-224", "hugging face", BASE_224,
              None, "4df810a56930047b1e181a5119da088963c608b57fb4e2280700d4d4aaa1ff31", "ImageNet-1k"),
    KnownFile("ram_tag_embedding_class_4585.pth", f"{_RAM}/recognize_anything_model", "embeddings", "", 9391429,
              "6f69070a6d69be4a88f5a99670bce29931db61faa3245283b501d7ff7a11040b",
              "4585 embeddings of RAM: not of an encoder"),
    KnownFile("ram_plus_tag_embedding_class_4585_des_51.pth", f"{_RAM}/recognize-anything-plus-model", "embeddings", "",
              478895553, "072918604bfd95a8b45596e2677453cfb4335e9dffca2a1b2cb9834decb4dba8",
              "4585 x 51 description embeddings: input of embed, not of verify"),
)  # fmt: skip

COMMON_NAMES = {"pytorch_model.bin", "model.safetensors"}
"""Of many files; they promise nothing."""


@dataclass(frozen=True)
class Identity:
    """A public file, and whether its digest proves it; otherwise only the name says so."""

    file: KnownFile
    proved: bool

    def describe(self) -> dict[str, Any]:
        """What the attestation says."""
        file = self.file
        return {"name": file.name, "origin": file.origin, "remark": file.remark, "proved": self.proved}


def identify(name: str, size: int, sha256: str, pinned: str = "") -> Identity | None:
    """The public file that a file is.

    Args:
        name: its name.
        size: in bytes.
        sha256: its digest, with or without ``sha256:`` in front.
        pinned: digest that the user expects; it counts more than the table. Empty: none.

    Raises:
        UserError: the digest is not the pinned one, or the name is a public file's and size or digest are not.
    """
    digest, expected = (text.strip().lower().removeprefix("sha256:") for text in (sha256, pinned))
    if expected and expected != digest:
        raise UserError(
            f"{name}: its sha256 is {digest}, not the expected {expected}: fetch it again, or set verify.sha256 to the "
            "digest of the file that is meant"
        )
    for known in KNOWN:
        if known.sha256 == digest:
            return Identity(known, proved=True)
    named = [known for known in KNOWN if known.name == name and name not in COMMON_NAMES]
    if (promised := [known for known in named if known.sha256]) and not expected:
        raise UserError(
            f"{name} has {size:,} bytes and sha256 {digest[:12]}..., the public file of this name "
            f"{_promise(promised)}: damaged or another file; fetch it again, or set verify.sha256={digest} to use it"
        )
    return Identity(named[0], proved=False) if named and not promised else None


def _promise(files: list[KnownFile]) -> str:
    sizes = [f"{file.bytes:,} bytes and " if file.bytes else "" for file in files]
    return "has " + " or ".join(f"{size}{(file.sha256 or '')[:12]}..." for size, file in zip(sizes, files, strict=True))
