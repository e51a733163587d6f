"""safetensors files that are written and read in slices, so that no array is ever held whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ramflow.errors import UserError

NAMES = {"int64": "I64", "int32": "I32", "uint8": "U8", "float32": "F32", "float16": "F16"}
ALIGNMENT = 8

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""dtype and shape by name."""


def create(path: Path, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Make a safetensors file of zeros and map its tensors for writing, one after another in the order of ``layout``.

    The library writes a file only from arrays that are whole in memory. (Format: an 8-byte little-endian length, a
    JSON header of that length, then the tensors.) Put the widest types first, so that all stay aligned.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {
        name: _mapped(path, 8 + len(text) + header[name]["data_offsets"][0], dtype, shape)
        for name, (dtype, shape) in layout.items()
    }


def _mapped(path: Path, offset: int, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r+", offset=offset, shape=shape)


class Slices:
    """Named tensors of a safetensors file, memory-mapped: ``slices["offset", a:b]`` reads rows a to b only."""

    def __init__(self, path: Path) -> None:
        """Map ``path``.

        Raises:
            UserError: it is gone, or not a safetensors file.
        """
        self.path = path
        try:
            self._file: Any = safe_open(path, framework="numpy")
        except (FileNotFoundError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}): fetch or make it again") from None
        self._slices = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118

    def __getitem__(self, where: tuple[str, slice]) -> npt.NDArray[Any]:
        name, rows = where
        return self._slices[name][rows]

    def length(self, name: str) -> int:
        """Rows of a tensor."""
        return int(self._slices[name].get_shape()[0])

    def __reduce__(self) -> tuple[type[Slices], tuple[Path]]:
        """Another process maps the file itself."""
        return Slices, (self.path,)
