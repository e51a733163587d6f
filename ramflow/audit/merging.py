"""An audit in parts, on many machines: ranges of shards, and the parts seen to be all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ramflow import __version__
from ramflow.audit.part import Part, read_part
from ramflow.data.dataset import Dataset
from ramflow.data.shard_range import check_cover
from ramflow.errors import UserError
from ramflow.settings import AuditSettings
from ramflow.stage import check_whole
from ramflow.verdict import Verdict, read_verdict

STAGE = "audit-part"
FREE_SETTINGS = {"workers"}
"""Settings in which parts may differ: they change no result."""


def shard_ranges(shards: int, per_task: int) -> list[str]:
    """``FIRST:END`` of consecutive ranges of ``per_task`` shards, END exclusive; together they are all."""
    return [f"{first}:{min(first + per_task, shards)}" for first in range(0, shards, per_task)]


def describe(shards: range) -> dict[str, Any]:
    """What a part's verdict says of it: its shards, and the versions that made it."""
    return {"first": shards.start, "end": shards.stop, "versions": _versions()}


def _versions() -> dict[str, str]:
    """Captions and paths are compared by hashes, which another version of polars may make in another way."""
    return {"ramflow": __version__, "polars": pl.__version__}


def open_parts(directories: Sequence[Path], dataset: Dataset, settings: AuditSettings) -> list[Part]:
    """The parts in the order of their shards.

    Raises:
        UserError: one is no part, is damaged, or was made from other data or with other settings; or they leave shards
            out, or have some twice.
    """
    verdicts = [(directory, _verdict(directory, dataset, settings)) for directory in directories]
    verdicts.sort(key=lambda part: part[1].metrics["first"])
    covered = [(directory, range(v.metrics["first"], v.metrics["end"])) for directory, v in verdicts]
    check_cover(covered, len(dataset.shards), "audit")
    return [read_part(directory) for directory, _ in verdicts]


def _verdict(directory: Path, dataset: Dataset, settings: AuditSettings) -> Verdict:
    v = read_verdict(directory)
    if v.stage != STAGE:
        advice = "make parts with `ramflow audit --shard-range`"
        raise UserError(f"{directory} is the output of {v.stage}, not a part of an audit: {advice}")
    check_whole(directory, v)
    if v.inputs.get("data") != dataset.digest:
        raise UserError(
            f"{directory} was made from data {v.inputs.get('data', '')[:19]}, the data given is {dataset.digest[:19]}: "
            "audit that range again"
        )
    _same("", directory, v.settings, settings.model_dump(mode="json"))
    _same("version of ", directory, v.metrics["versions"], _versions())
    return v


def _same(kind: str, directory: Path, made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in now.items():
        if name not in FREE_SETTINGS and made.get(name) != value:
            made_with = f"{kind or 'audit.'}{name} {made.get(name)}"
            raise UserError(f"{directory} was made with {made_with}, not {value}: audit that range again")
