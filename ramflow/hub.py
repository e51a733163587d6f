"""Models of the Hugging Face hub, brought here as folders that hold what the model needs and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramflow import storage
from ramflow.errors import UserError
from ramflow.locks import locked
from ramflow.progress import say

NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
CONFIGURATION = ("*.json", "*.txt", "*.model")
"""Settings and tokenizers; those of other kinds of weights (``*.bin.index.json`` and the like) do no harm."""
SAFE, PICKLED = "model*.safetensors", "pytorch_model*.bin"


def fetch(address: str, cache: Path) -> Path:
    """A folder below ``cache`` with the files of a model: settings, tokenizer, and weights as safetensors.

    Weights are pickled files only where the model has no others. The files themselves are in the hub client's own
    cache, which is used without a network too; the folder links to them, and is named by the commit, so that one
    revision has one digest whatever else that cache holds.

    Args:
        address: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` with a branch, tag or commit.
        cache: where the folder is made.

    Raises:
        UserError: no such name, model or revision, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    match = NAME.fullmatch(address)
    if not match:
        raise UserError(
            f"no such file or directory: {address} (a model of the hub is OWNER/NAME or OWNER/NAME@REVISION)"
        )
    name, revision = match["name"], match["revision"]
    with _one_line(address):
        where = Path(snapshot_download(name, revision=revision, allow_patterns=[*CONFIGURATION, SAFE]))
        weights = SAFE
        if not any(where.glob(SAFE)):
            weights = PICKLED
            where = Path(snapshot_download(name, revision=where.name, allow_patterns=[*CONFIGURATION, PICKLED]))
    files = sorted({path.name: path for kind in (*CONFIGURATION, weights) for path in where.glob(kind)}.values())
    if not files:
        raise UserError(f"{address} on the hub has neither settings nor weights of a model: give another one")
    say(f"{address} is commit {where.name} of the hub")
    return _linked(files, cache / name / where.name, cache)


def _linked(files: list[Path], folder: Path, cache: Path) -> Path:
    with locked(storage.lock_of(folder, cache)):
        folder.mkdir(parents=True, exist_ok=True)
        storage.remove_others(folder, {folder / path.name for path in files})
        for path in files:
            place, target = folder / path.name, path.resolve()
            if not place.is_symlink() or place.readlink() != target:
                with storage.whole_file(place) as temporary:
                    os.symlink(target, temporary)
    return folder


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    from huggingface_hub import constants, errors

    absent = f"there is no folder {address} here, and the hub"
    try:
        yield
    except errors.RevisionNotFoundError:
        raise UserError(f"{absent} has no such revision of it: see the branches and tags of the model there") from None
    except errors.GatedRepoError:
        raise UserError(f"{absent} wants a login and consent to its terms: give HF_TOKEN, or a local folder") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{absent} has no model of that name (or a private one): give a folder or OWNER/NAME") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{absent} ({constants.ENDPOINT}) did not give it: {reason}; check the network and HF_ENDPOINT, or give a "
            "local folder"
        ) from None
