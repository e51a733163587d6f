"""The exact key ledger: every tensor of file and encoder is accounted for, or nothing is loaded (F01 to F03)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ramflow.errors import UserError
from ramflow.weights.encoder_tensors import EncoderTensors, Source
from ramflow.weights.families import Place
from ramflow.weights.formats import WeightsFile
from ramflow.weights.interpolate import METHOD, SOURCE, window_of
from ramflow.weights.shapes import describe

HEAD = "head."
TABLE = "relative_position_bias_table"
BUFFERS = ("relative_position_index", "attn_mask")
SHOWN = 3


@dataclass(frozen=True)
class Ledger:
    """Where every tensor went.

    A key of the file stands in exactly one of ``loaded`` (as it is), ``converted`` (``from``, one key or several,
    and ``to`` with the ``changes`` made) and ``unexpected`` (not used: the classification head, and buffers that the
    encoder computes and that were found equal); of a whole model's file, the tensors outside the encoder are counted
    in ``other`` by their first name. A key of the encoder stands in exactly one of ``loaded``, ``converted`` and
    ``expected_missing`` (buffers that it computes itself). ``interpolated`` says what was, in sentences.
    """

    loaded: list[str] = field(default_factory=list)
    converted: list[dict[str, Any]] = field(default_factory=list)
    expected_missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)
    interpolated: list[str] = field(default_factory=list)


def match_keys(
    file: WeightsFile, encoder: nn.Module, name: str, *, interpolate: bool = False
) -> tuple[Ledger, EncoderTensors]:
    """Match a file's tensors with the encoder's, without changing the encoder.

    Args:
        file: what was opened.
        encoder: the timm model, without its head.
        name: what error messages call the encoder.
        interpolate: position tables of another window are resized, and masks of another image size computed anew.

    Returns:
        The ledger, and float32 tensors under the encoder's names: exactly the keys of its state dict.

    Raises:
        UserError: a key is missing, unknown, of another shape or not of floating point; names the first of each.
    """
    return _Matching(file, encoder, interpolate).result(name)


class _Matching:
    """One file against one encoder."""

    def __init__(self, file: WeightsFile, encoder: nn.Module, interpolate: bool) -> None:
        self.file = file
        self.wanted = encoder.state_dict()
        self.computed = {key: buffer for key, buffer in encoder.named_buffers() if key not in self.wanted}
        self.interpolate = interpolate
        self.ledger = Ledger(expected_missing=sorted(self.computed))
        self.sources: dict[str, Source] = {}
        self.windows: Counter[tuple[int, int]] = Counter()
        self.masks = 0
        self.missing: list[str] = []
        self.unknown: list[str] = []
        self.faulty: list[str] = []
        self.stale: list[str] = []

    def result(self, name: str) -> tuple[Ledger, EncoderTensors]:
        found: dict[str, dict[int, str]] = {}
        parts: dict[str, int] = {}
        for key in self.file.keys:
            place = self.file.place(key)
            if place is None:
                group = key.partition(".")[0]
                self.ledger.other[group] = self.ledger.other.get(group, 0) + 1
            elif place.key in self.wanted and place.part not in found.get(place.key, {}):
                found.setdefault(place.key, {})[place.part] = key
                parts[place.key] = place.parts
            else:
                self._other(key, place)
        for target in self.wanted:
            self._enter(target, found.get(target, {}), parts.get(target, 1))
        self.faulty += self.stale
        if self.missing or self.unknown or self.faulty:
            raise UserError(f"{self.file.path} is not for encoder {name}: {self._explain()}")
        self._say_interpolated()
        return self.ledger, EncoderTensors(self.file, self.sources)

    def _other(self, key: str, place: Place) -> None:
        buffer = place.key.endswith(BUFFERS)
        if place.key.startswith(HEAD):
            self.ledger.unexpected.append(key)
        elif place.key in self.computed or (buffer and self.interpolate):
            self.ledger.unexpected.append(key)
            self._compare_buffer(key, self.computed.get(place.key))
        else:
            self.unknown.append(key)

    def _compare_buffer(self, key: str, computed: Tensor | None) -> None:
        if computed is not None and self.file.shape(key) == list(computed.shape):
            if not torch.equal(self.file.view(key).to(computed.dtype), computed):
                self.stale.append(f"{key} is not what the encoder computes")
        elif self.interpolate:
            self.masks += 1
        else:
            self.stale.append(f"{key} is not what the encoder computes (another window or image size)")

    def _enter(self, target: str, found: dict[int, str], parts: int) -> None:
        keys = [found[part] for part in sorted(found)]
        if len(keys) < parts:
            self.missing.append(target + (f" ({len(keys)} of its {parts} parts are there)" if keys else ""))
            return
        dtypes = {self.file.dtype(key) for key in keys}
        if bad := [key for key in keys if not self.file.dtype(key).is_floating_point]:
            self.faulty.append(f"{bad[0]} is {_short(self.file.dtype(bad[0]))}, not floating point")
            return
        changes = ["concatenated"] if parts > 1 else ["renamed"] if keys != [target] else []
        changes += [f"{_short(dtype)} to float32" for dtype in sorted(dtypes, key=str) if dtype != torch.float32]
        window = self._fit(target, keys)
        if window:
            changes.append(window)
        if changes:
            self.ledger.converted.append({"from": keys if parts > 1 else keys[0], "to": target, "changes": changes})
        else:
            self.ledger.loaded.append(target)

    def _fit(self, target: str, keys: list[str]) -> str | None:
        """Enter the source of a tensor; returns what was interpolated."""
        wanted, shapes = list(self.wanted[target].shape), [self.file.shape(key) for key in keys]
        share = [wanted[0] // len(keys), *wanted[1:]]
        differing = next((n for n, shape in enumerate(shapes) if shape != share), None)
        if differing is None:
            self.sources[target] = Source(keys)
            return None
        shape, text = shapes[differing], f"{keys[differing]} is {shapes[differing]}, not {share}"
        windows = window_of(shape[0]), window_of(share[0])
        if target.endswith(TABLE) and len(shape) == 2 and shape[1] == share[1] and windows[0] and windows[1]:
            if self.interpolate:
                self.sources[target] = Source(keys, windows[1])
                self.windows[windows[0], windows[1]] += 1
                return f"interpolated from window {windows[0]} to {windows[1]}, {METHOD}"
            text += f" (window {windows[0]}, not {windows[1]})"
            self.windows[windows[0], windows[1]] += 1
        elif shape == share[::-1]:
            text += " (transposed)"
        self.faulty.append(text)
        return None

    def _say_interpolated(self) -> None:
        for (old, new), tables in sorted(self.windows.items()):
            self.ledger.interpolated.append(
                f"{tables} position tables interpolated from window {old} to {new}, {METHOD} ({SOURCE})"
            )
        if self.masks:
            self.ledger.interpolated.append(f"{self.masks} buffers of another window or image size computed anew")

    def _explain(self) -> str:
        groups = (("missing", self.missing), ("unknown", self.unknown), ("not fitting", self.faulty))
        parts = [f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}" for what, keys in groups if keys]
        advice = "give the encoder (and its options) that the file was made for"
        if not self.interpolate and (self.windows or any("image size" in text for text in self.faulty)):
            advice += ", or set verify.interpolate: true to take it to this window and image size (recorded)"
        held = describe(self.file)
        return "; ".join([*parts, *([f"by its shapes the file is {held}"] if held else []), advice])


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
