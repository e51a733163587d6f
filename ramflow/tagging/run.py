"""``ramflow tag``: pictures through a model, a line for each as soon as its batch is done."""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ramflow import hub, storage
from ramflow.embed.encoder import TextEncoder
from ramflow.errors import UserError
from ramflow.model.device import choose_device, make_repeatable
from ramflow.model.saved import FOLDER, SavedModel, load_model
from ramflow.progress import say, track
from ramflow.tagging.pictures import Decoded, Fault, find_pictures, read_pictures
from ramflow.tagging.vocabulary import Said, Vocabulary, encode_words, read_words, with_table
from ramflow.tags import TagTable

DIGITS = 6
"""Of a score in JSON, as of thresholds."""


def tag_pictures(a: argparse.Namespace) -> None:
    """Print what the model says of every picture; those that cannot be read are named on standard error.

    Args:
        a: what :mod:`ramflow.tagging.command` parsed and checked.

    Raises:
        UserError: the model, the tag list or the words cannot be used; or, at the end, a picture could not be read.
    """
    make_repeatable()
    device = choose_device(a.device)
    directory = _model_directory(a.model)
    saved = load_model(directory)
    table = _own_tags(a, saved) if a.words is None else _words(a, saved, directory)
    vocabulary = Vocabulary(_checked(a, table), gated=a.top is None or a.threshold is not None, top=a.top)
    saved.model.to(device)
    found = find_pictures(a.images)
    batches = read_pictures(found, saved.preprocessing, a.batch)
    if not sys.stdout.isatty():
        batches = track(batches, "tag: batches", -(-len(found) // a.batch))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    failed = 0
    for batch in batches:
        failed += _print(batch, saved, vocabulary, a)
    if failed:
        raise UserError(f"{failed} of {len(found)} could not be tagged; each is named above")


def _model_directory(given: str) -> Path:
    """The output of train, here; of a remote one only the model."""
    if storage.is_remote(given):
        return storage.fetch(f"{given.rstrip('/')}/{FOLDER}", storage.cache_directory() / "s3").parent
    directory = Path(given)
    if not (directory / FOLDER).is_dir() and (directory / "config.json").is_file():
        raise UserError(f"--model {given} is the model itself: give the folder above it, the output of train")
    if not (directory / FOLDER).is_dir():
        raise UserError(f"--model {given}: no trained model is there ({FOLDER}/): give the output of `ramflow train`")
    return directory


def _own_tags(a: argparse.Namespace, saved: SavedModel) -> TagTable:
    table = with_table(saved.tags, a.tags) if a.tags else saved.tags
    return table if a.threshold is None else replace(table, thresholds=[a.threshold] * len(table))


def _words(a: argparse.Namespace, saved: SavedModel, directory: Path) -> TagTable:
    """The words as a table, their vectors in the place of those of the model's tags."""
    table, descriptions = read_words(a.words)
    encoder = TextEncoder(_clip(a.clip))
    _check_encoder(encoder, a, directory)
    embeddings, mask = encode_words(table, descriptions, a.template, encoder)
    saved.model.embeddings, saved.model.mask = embeddings, mask
    threshold = a.threshold
    if threshold is None and not table.thresholds:
        threshold = statistics.median(saved.tags.thresholds) if saved.tags.thresholds else None
    return table if threshold is None else replace(table, thresholds=[threshold] * len(table))


def _clip(given: str) -> Path:
    local = Path(given)
    return local if local.exists() else hub.fetch(given, storage.cache_directory() / "hub")


def _check_encoder(encoder: TextEncoder, a: argparse.Namespace, directory: Path) -> None:
    provenance = json.loads((directory / FOLDER / "provenance.json").read_text(encoding="utf-8"))
    own = provenance["text_encoder"]
    if own != encoder.identity:
        differing = [key for key, value in encoder.identity.items() if own.get(key) != value]
        told = ", ".join(f"{key} {str(own.get(key))[:19]}, not {str(encoder.identity[key])[:19]}" for key in differing)
        raise UserError(
            f"--clip {a.clip} is another text encoder than that of the model's tag embeddings ({told}): give the CLIP "
            "that embed used"
        )


def _checked(a: argparse.Namespace, table: TagTable) -> TagTable:
    if not table.thresholds:
        raise UserError(f"--model {a.model} has no thresholds: give --threshold")
    if (a.chinese or a.both) and not table.chinese:
        option = "--words" if a.words else "--tags"
        raise UserError(
            f"{a.words or a.tags or a.model} has no Chinese names: give {option} a list that has "
            "(`ramflow tags import --names LIST --chinese FILE`)"
        )
    return table


def _print(batch: list[Decoded | Fault], saved: SavedModel, vocabulary: Vocabulary, a: argparse.Namespace) -> int:
    """Print a line a picture, in order; returns how many could not be read."""
    scores = _scores(saved, [one.pixels for one in batch if isinstance(one, Decoded)], a.batch)
    failed = 0
    for one in batch:
        if isinstance(one, Fault):
            failed += 1
            sys.stdout.flush()
            say(f"ramflow: {one.name}: {one.reason}")
        else:
            said = vocabulary.choose(next(scores))
            print(_as_json(one.name, said) if a.json else _as_text(one.name, said, a))
    sys.stdout.flush()
    return failed


@torch.inference_mode()
def _scores(saved: SavedModel, pixels: list[torch.Tensor], batch: int) -> Iterator[npt.NDArray[np.float32]]:
    """Scores [tags] of each picture, in float32, as evaluate computes them."""
    if not pixels:
        return iter(())
    model = saved.model
    try:
        images = saved.preprocessing.normalise(torch.stack(pixels).to(model.embeddings.device))
        return iter(torch.sigmoid(model(images).float()).cpu().numpy())
    except torch.OutOfMemoryError:
        raise UserError(f"the GPU has too little memory for --batch {batch}: give a smaller one") from None


def _as_text(name: str, said: Iterable[Said], a: argparse.Namespace) -> str:
    tags = ", ".join(f"{_called(tag, a)} {tag.score:.2f}" for tag in said)
    return f"{name}: {tags or 'no tag'}"


def _called(tag: Said, a: argparse.Namespace) -> str:
    if a.both and tag.chinese:
        return f"{tag.name} {tag.chinese}"
    return (a.chinese and tag.chinese) or tag.name


def _as_json(name: str, said: Iterable[Said]) -> str:
    tags = [{**asdict(tag), "score": round(tag.score, DIGITS)} for tag in said]
    return json.dumps({"image": name, "tags": tags}, ensure_ascii=False)
