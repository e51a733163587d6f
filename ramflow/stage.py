"""How every stage runs: inputs brought here and checked, output whole, verdict written, gate obeyed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ramflow import hub, storage, verdict
from ramflow.data.dataset import DATASET_FILE
from ramflow.data.remote import fetch_dataset_tables
from ramflow.errors import UserError
from ramflow.settings import Section
from ramflow.verdict import Verdict

CACHE = storage.cache_directory()
PART = "-part"
"""How the name of a stage ends whose output is a part of another stage's."""


@dataclass(frozen=True)
class Input:
    """An input of a stage: its name, which is also its option, and one line of help."""

    name: str
    help: str
    required: bool = True
    gated: bool = True
    """An input that is a stage's output must have passed."""
    made_by: tuple[str, ...] = ()
    """Stages whose output it may be, where it is a stage's output at all; empty: any."""
    related: bool = True
    """It is made from the same things as the other inputs; an earlier version of them is not."""
    hub: bool = False
    """It may be a model of the Hugging Face hub."""
    default: str = ""
    """What it is where it is not given."""


@dataclass(frozen=True)
class Stage:
    """One row of the table of stages: all that the command line and the pipelines know of it.

    ``run`` is ``module:function``, imported when the stage runs, so that a stage loads only what it needs; it is
    called with the stage's settings, a local path for each input, and ``out``, the directory to fill.
    """

    name: str
    summary: str
    inputs: tuple[Input, ...]
    run: str
    resumable: bool = False
    extras: tuple[Input, ...] = ()
    """Inputs that only the command line has, and the pipelines do not wire."""
    free: tuple[str, ...] = ()
    """Settings with which an interrupted run goes on though they changed: they decide how, not what."""
    distributed: bool = False
    """It may run as several processes of ``torchrun``; process 0 writes."""

    def function(self) -> Callable[..., Verdict]:
        """Import and return the function behind the stage."""
        module, _, name = self.run.partition(":")
        function: Callable[..., Verdict] = getattr(import_module(module), name)
        return function


def execute(
    stage: Stage,
    settings: Section,
    inputs: dict[str, str],
    out: str,
    *,
    enforce: bool = False,
    options: Mapping[str, object] | None = None,
) -> Verdict:
    """Run a stage from its inputs to ``out`` and return its verdict.

    Args:
        stage: what to run.
        settings: its section of the params file.
        inputs: local or s3:// path by input name; names that the stage lacks are an assertion error.
        out: local or s3:// directory; appears whole, ``verdict.json`` included, or not at all.
        enforce: raise when the verdict is a no (after writing it).
        options: what the stage's function takes beside settings, inputs and ``out``.

    Of several processes of a distributed stage, all but the first take part and write nothing.

    Raises:
        UserError: an input is missing, or two inputs do not belong together.
        GateRefused: an input's verdict is a no, or with ``enforce`` the stage's own.
    """
    target = CACHE.joinpath("out", *storage.split_address(out)) if storage.is_remote(out) else Path(out)
    paths, digests = open_inputs(stage.name, (*stage.inputs, *stage.extras), inputs)
    if (there := _verdict_of(target)) is not None and there.stage != stage.name:
        raise UserError(f"{out} holds the output of {there.stage}: give an empty or new directory for {stage.name}")
    if stage.distributed and int(os.environ.get("RANK", "0")):
        given = {n.replace("-", "_"): p for n, p in paths.items()}
        return stage.function()(settings, **given, **(options or {}), out=target)
    kept = {key: value for key, value in settings.model_dump(mode="json").items() if key not in stage.free}
    claim = {"inputs": digests, "settings": kept} if stage.resumable else None
    with storage.whole_directory(target, marker=verdict.FILE_NAME, claim=claim) as partial:
        given = {n.replace("-", "_"): p for n, p in paths.items()}
        result = stage.function()(settings, **given, **(options or {}), out=partial)
        result.inputs = result.inputs | digests
        result.settings = settings.model_dump(mode="json")
        result.outputs = storage.sha256_tree(partial)
        result.write(partial)
    if storage.is_remote(out):
        storage.publish(target, out, last=verdict.FILE_NAME)
    verdict.announce(result, out)
    if enforce and not result.passed:
        raise result.refusal(out)
    return result


def open_inputs(
    reader: str, known: Iterable[Input], given: Mapping[str, str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Bring inputs here and check them; returns the local path and the digest of each by name.

    Args:
        reader: the stage that reads them, for messages.
        known: the inputs that the reader has.
        given: local or s3:// path by input name; names that the reader lacks are an assertion error.

    Raises:
        UserError: an input is missing, is not what its verdict lists, or two inputs do not belong together.
        GateRefused: the verdict of a gated input is a no.
    """
    inputs = {i.name: i for i in known}
    given = {i.name: i.default for i in inputs.values() if i.default} | dict(given)
    assert set(given) <= set(inputs), set(given) - set(inputs)
    paths = {name: _local(inputs[name], path) for name, path in given.items()}
    verdicts = {name: v for name, path in paths.items() if (v := _verdict_of(path)) is not None}
    for name, v in verdicts.items():
        _check_maker(inputs[name], v, given[name])
        if inputs[name].gated and not v.passed:
            raise v.refusal(given[name])
        check_whole(paths[name], v)
    digests = {name: _digest(path) for name, path in sorted(paths.items())}
    related = {name for name in given if inputs[name].related}
    _check_lineage(reader, {n: d for n, d in digests.items() if n in related},
                   {n: v for n, v in verdicts.items() if n in related})  # fmt: skip
    return paths, digests


def _local(given: Input, path: str) -> Path:
    if given.name == "data" and storage.is_remote(path):
        return fetch_dataset_tables(path, CACHE / "s3")
    if given.hub and not storage.is_remote(path) and not Path(path).exists():
        return hub.fetch(path, CACHE / "hub")
    return storage.fetch(path, CACHE / "s3")


def _verdict_of(path: Path) -> Verdict | None:
    return verdict.read_verdict(path) if (path / verdict.FILE_NAME).is_file() else None


def _digest(path: Path) -> str:
    for name in (DATASET_FILE, verdict.FILE_NAME):
        if (path / name).is_file():
            return storage.sha256_file(path / name)
    return storage.sha256_path(path)


def _check_maker(given: Input, v: Verdict, path: str) -> None:
    if not given.made_by or v.stage in given.made_by:
        return
    advice = "give the right directory"
    if v.stage.endswith(PART):
        advice = f"put all parts together with `ramflow {v.stage.removesuffix(PART)} --parts`"
    raise UserError(f"--{given.name} {path} is the output of {v.stage}, not of {given.made_by[0]}: {advice}")


def check_whole(path: Path, v: Verdict) -> None:
    """See that the files of an output are those that its verdict lists.

    Raises:
        UserError: one is gone or altered.
    """
    for name, digest in v.outputs.items():
        if not (path / name).is_file():
            raise UserError(f"{path / name} is gone: run {v.stage} again")
        if storage.sha256_file(path / name) != digest:
            raise UserError(f"{path / name} is not what {v.stage} wrote (its sha256 differs): run {v.stage} again")


def _check_lineage(stage: str, digests: dict[str, str], verdicts: dict[str, Verdict]) -> None:
    seen = {name: (digest, f"the {name} given") for name, digest in digests.items()}
    for holder, v in verdicts.items():
        for name, digest in v.inputs.items():
            first, where = seen.setdefault(name, (digest, f"the {name} that {holder} was made from"))
            if first != digest:
                raise UserError(
                    f"{stage}: inputs do not belong together: {holder} was made from {name} {digest[:19]}, "
                    f"{where} is {first[:19]}; run {v.stage} again"
                )
