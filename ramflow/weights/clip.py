"""A CLIP in transformers' layout, read without running code of its folder, and what cannot be read in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging

from ramflow.errors import UserError
from ramflow.weights.containers import load_torch

transformers_logging: Any = logging


def load_clip(kind: Any, clip: Path) -> tuple[Any, dict[str, Any]]:
    """The model and what transformers says of its loading; pickled weights go through the one reader of pickles.

    Args:
        kind: class of transformers, the one of the folder's model type.
        clip: the folder.

    Raises:
        UserError: pickled weights want to run code, or are no weights by name. Other errors: see :func:`one_line`.
    """
    transformers_logging.disable_progress_bar()
    pickled = [] if any(clip.glob("model*.safetensors")) else sorted(clip.glob("pytorch_model*.bin"))
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, "use_safetensors": True}
    if not pickled:
        return kind.from_pretrained(clip, **options)
    state: dict[str, Tensor] = {}
    for path in pickled:
        content = load_torch(path)
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise UserError(f"{path} holds no weights by name: give a folder with model.safetensors")
        state |= content
    config = kind.config_class.from_pretrained(clip)
    return kind.from_pretrained(None, config=config, state_dict=state, **options)


@contextmanager
def one_line(clip: Path) -> Iterator[None]:
    """What transformers raises over a folder that it cannot read, as one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{clip} is not a CLIP that transformers can read: {reason}") from None
