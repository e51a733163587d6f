"""The text encoder: the text half of any CLIP of transformers, frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection
from transformers.utils import logging

from ramflow import storage
from ramflow.errors import UserError
from ramflow.progress import track

CLIP_TYPES = ("clip", "clip_text_model")
TOKENIZED_AT_A_TIME = 4096

transformers_logging: Any = logging


class _TextHalf(CLIPTextModelWithProjection):
    """The text model of a folder that may hold a whole CLIP, whose other half is left in the file."""

    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$"]  # noqa: RUF012 (as transformers declares it)


class TextEncoder:
    """Texts to unit vectors in CLIP's shared space.

    ``width`` is that of a vector, ``limit`` the most tokens of a text that the model reads, ``identity`` what an
    artifact says of its encoder: type, width and the digest of its weights.
    """

    def __init__(self, clip: Path) -> None:
        """Load the tokenizer and the text model of a folder in transformers' layout.

        Raises:
            UserError: transformers cannot read it, it is not a CLIP, or weights are missing from it.
        """
        transformers_logging.disable_progress_bar()
        with _one_line(clip):
            text_half: Any = _TextHalf
            config: Any = AutoConfig.from_pretrained(clip)
            if config.model_type not in CLIP_TYPES:
                raise UserError(f"{clip} is a {config.model_type} model, not CLIP: give a CLIP folder of transformers")
            self._tokenizer: Any = AutoTokenizer.from_pretrained(clip)
            model, info = text_half.from_pretrained(clip, dtype=torch.float32, output_loading_info=True)
        absent = sorted(info["missing_keys"])
        if absent:
            raise UserError(f"{clip} lacks {len(absent)} weights of its text model, first {absent[0]}: fetch it again")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().requires_grad_(False).to(self._device)
        self.width: int = model.config.projection_dim
        self.limit: int = min(model.config.max_position_embeddings, self._tokenizer.model_max_length)
        self.identity = {"type": config.model_type, "width": self.width, "weights": _weights_digest(clip)}

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of every text before it is cut at ``limit``, start and end token included."""
        counts: list[int] = []
        for start in range(0, len(texts), TOKENIZED_AT_A_TIME):
            part = list(texts[start : start + TOKENIZED_AT_A_TIME])
            counts += [len(ids) for ids in self._tokenizer(part, verbose=False)["input_ids"]]
        return counts

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], counts: Sequence[int], batch: int, label: str, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Unit vectors [texts, width] on the CPU, in the order of ``texts``; computed in float32, kept as ``dtype``.

        Args:
            texts: what to encode; longer ones are cut at ``limit`` tokens.
            counts: their :meth:`token_counts`: texts of one length are encoded together.
            batch: texts at a time.
            label: what the progress line says.
            dtype: of the result.
        """
        vectors = torch.empty(len(texts), self.width, dtype=dtype)
        order = sorted(range(len(texts)), key=counts.__getitem__)
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        for rows in track(batches, label, len(batches)):
            vectors[rows] = self._encode([texts[row] for row in rows]).to(dtype)
        return vectors

    def encode_one(self, text: str) -> Tensor:
        """The unit vector [width] of one text on its own, float32 on the CPU."""
        return self._encode([text])[0]

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self.limit, return_tensors="pt", verbose=False
        )
        vectors: Tensor = self._model(**tokens.to(self._device)).text_embeds
        return normalize(vectors.float(), dim=-1).cpu()


def _weights_digest(clip: Path) -> str:
    files = sorted(p for p in clip.iterdir() if p.suffix in (".safetensors", ".bin"))
    digests = [storage.sha256_file(path) for path in files]
    return digests[0] if len(digests) == 1 else storage.sha256_bytes("\n".join(digests).encode())


@contextmanager
def _one_line(clip: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{clip} is not a CLIP that transformers can read: {reason}") from None
