"""The file's tensors as the encoder wants them: renamed, put together, float32, each read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ramflow.weights.formats import WeightsFile
from ramflow.weights.interpolate import resize_table


@dataclass(frozen=True)
class Source:
    """Keys of the file that make one tensor, in order, and the window to interpolate to."""

    keys: list[str]
    window: int | None = None


class EncoderTensors(Mapping[str, Tensor]):
    """The file's tensors as the encoder wants them, float32 under its names, each read when asked for, not kept.

    They may lie in the file itself (:meth:`WeightsFile.view`): for reading only.
    """

    def __init__(self, file: WeightsFile, sources: dict[str, Source]) -> None:
        self._file = file
        self._sources = sources

    def __getitem__(self, key: str) -> Tensor:
        source = self._sources[key]
        parts = [self._file.view(k).to(torch.float32) for k in source.keys]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        return resize_table(tensor, source.window) if source.window else tensor.contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
