"""The artifacts of one run, opened for the page; what cannot be read is one line that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import SafetensorError

from ramflow import stages
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.stage import open_inputs
from ramflow.verdict import Verdict, read_verdict

STAGES = ("audit", "embed", "verify", "train", "scratch", "evaluate")
TITLES = {name: name.capitalize() for name in STAGES} | {"scratch": "From scratch"}


@dataclass(frozen=True)
class Run:
    """What the page is made from: the dataset, and the output directory and verdict of each stage that has run.

    ``paths``, ``digests`` and ``verdicts`` are by input name; ``scratch`` is the train stage run from random weights.
    """

    dataset: Dataset
    paths: dict[str, Path]
    digests: dict[str, str]
    verdicts: dict[str, Verdict]

    def has(self, *names: str) -> bool:
        """True when all of these stages have run."""
        return all(name in self.verdicts for name in names)

    def json(self, name: str, file: str) -> dict[str, Any]:
        """An artifact that is one JSON object."""
        with reading(self.paths[name] / file):
            content = json.loads((self.paths[name] / file).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            return content

    def lines(self, name: str, file: str) -> list[dict[str, Any]]:
        """An artifact with a JSON object a line."""
        with reading(self.paths[name] / file):
            text = (self.paths[name] / file).read_text(encoding="utf-8")
            return [dict(json.loads(line)) for line in text.splitlines()]

    def table(self, name: str, file: str, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of a Parquet artifact, null where there is no number."""
        with reading(self.paths[name] / file):
            return pl.read_parquet(self.paths[name] / file, columns=list(columns)).fill_nan(None)


def open_run(inputs: Mapping[str, str]) -> Run:
    """Open the inputs of the page, which belong together and are what their verdicts list.

    Raises:
        UserError: one is missing, damaged or not the output of a stage, or two do not belong together.
    """
    paths, digests = open_inputs("report", stages.REPORT_INPUTS + stages.REPORT_EXTRAS, inputs)
    verdicts = {name: read_verdict(paths[name]) for name in STAGES if name in paths}
    for name, verdict in verdicts.items():
        expected = "train" if name == "scratch" else name
        if verdict.stage != expected:
            raise UserError(f"--{name} {inputs[name]} is the output of {verdict.stage}: give the output of {expected}")
    return Run(Dataset(paths["data"]), paths, digests, verdicts)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the content of an artifact into one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run that stage again") from None
    except (ValueError, KeyError, TypeError, IndexError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path} is not what this version of ramflow writes ({error}): run that stage again") from None
