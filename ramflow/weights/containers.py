"""Files of tensors opened safely: torch.save's zip and older pickle, and safetensors. Nothing else here unpickles.

All that a file claims is checked against its size before memory is spent on it: members of a zip that are compressed,
overlap or are larger than the file, a pickle that is huge or wants to run code (``pickles.py``), a header that lies.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ramflow.errors import UserError
from ramflow.weights.pickles import MAX_PICKLE, examine
from ramflow.weights.stand_ins import STAND_INS

Container = Literal["safetensors", "torch"]

ZIP, PICKLE = b"PK", b"\x80"
"""How files of torch start, since 1.6 and before."""

MAX_OLD_FILE = 1 << 30
"""Bytes; files of torch before 1.6 are read whole into memory."""

MAX_HEADER = 100_000_000
"""Bytes of a header of safetensors, as its library has it."""

MAX_MEMBERS = 100_000
OLD_PICKLES = 5
"""Magic number, protocol, system, content, and keys of the storages."""


def container_of(path: Path) -> Container:
    """Tell by its first bytes what kind of file ``path`` is.

    Raises:
        UserError: no such file.
    """
    if not path.is_file():
        raise UserError(f"no such weights file: {path}" + (": a folder, give the file in it" if path.is_dir() else ""))
    with path.open("rb") as file:
        start = file.read(9)
    torch_file = start.startswith((PICKLE, ZIP)) and not _has_header(start)
    return "torch" if torch_file else "safetensors"


def _has_header(start: bytes) -> bool:
    """Whether a file starts as safetensors do, with the length of a JSON header, whatever bytes that number has."""
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER


def is_zip(path: Path) -> bool:
    """True for torch's format since 1.6."""
    with path.open("rb") as file:
        return file.read(2) == ZIP


def open_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors of a safetensors file, mapped and not read, and its metadata.

    Raises:
        UserError: damaged, cut off, not such a file, or its header claims what the file does not hold.
    """
    try:
        file: Any = safe_open(path, framework="pt")
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write float32 tensors one after another, sorted by name: the library's bytes, without its copies in memory."""
    keys = sorted(tensors)
    ends = list(accumulate(4 * tensors[key].numel() for key in keys))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    for key, start, end in zip(keys, [0, *ends], ends, strict=False):
        header[key] = {"dtype": "F32", "shape": list(tensors[key].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            assert tensors[key].dtype == torch.float32
            file.write(tensors[key].detach().cpu().contiguous().numpy().data)


def load_torch(path: Path, *, checked: bool = False) -> object:
    """What ``torch.save`` wrote to ``path``: tensors on the CPU, in zips mapped and not read.

    Settings beside the tensors come as mappings (:class:`~ramflow.weights.stand_ins.Settings`).

    Args:
        path: the file.
        checked: it was opened before, and is not checked again.

    Raises:
        UserError: damaged, cut off, a bomb, or a pickle that wants more than tensors and settings, which is named.
    """
    try:
        zipped = is_zip(path)
        if not checked:
            _check_zip(path) if zipped else _check_old(path)
        return _load(path, zipped)
    except UnpicklingError as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is refused: no plain torch.save file ({reason}); save its state dict alone") from None
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _load(path: Path, zipped: bool) -> object:
    stand_ins: Any = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # of storage types that torch will drop one day
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        root = members[0].filename.partition("/")[0] if members else ""
        names = {member.filename: member for member in members}
        if f"{root}/constants.pkl" in names:
            raise UserError(f"{path} is refused: it is a TorchScript program, not weights; save its state dict alone")
        _check_members(path, members, size)
        if (content := names.get(f"{root}/data.pkl")) is None:
            raise zipfile.BadZipFile("a zip without data.pkl")
        if content.file_size > MAX_PICKLE:
            raise UserError(
                f"{path} is refused: its pickle has {content.file_size:,} bytes, {MAX_PICKLE:,} are allowed; save its "
                "state dict alone"
            )
        found, _ = examine(archive.read(content), path)
        for key, wanted in found.storages.items():
            if (held := names.get(f"{root}/data/{key}")) is None or held.file_size != wanted:
                raise zipfile.BadZipFile(f"storage {key} is not there or not of {wanted} bytes")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} differs")


def _check_members(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS or len({member.filename for member in members}) < len(members):
        raise UserError(f"{path} is refused: its zip has too many members, or two of one name; fetch it again")
    end = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UserError(
                f"{path} is refused: {member.filename} in it is compressed, {member.compress_size:,} bytes to "
                f"{member.file_size:,}, which torch.save never does; save its state dict again"
            )
        start, end = end, member.header_offset + member.file_size
        if member.header_offset < start or end > size:
            raise UserError(f"{path} is refused: {member.filename} in it overlaps others or the end; fetch it again")


def _check_old(path: Path) -> None:
    if path.stat().st_size > MAX_OLD_FILE:
        raise UserError(
            f"{path} is refused: torch's format before 1.6 is read whole into memory, and it has more than 1 GiB: "
            "save it again with a current torch"
        )
    with path.open("rb") as file:
        data = file.read(MAX_PICKLE)
    place, held = 0, 0
    for _ in range(OLD_PICKLES):
        found, length = examine(data[place:], path)
        place += length
        held += sum(found.storages.values())
    if held > path.stat().st_size:
        raise EOFError(f"its tensors have {held:,} bytes, more than the file")


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:200]
    return UserError(f"{path} is damaged, cut off or not a weights file ({reason}): fetch it again")
