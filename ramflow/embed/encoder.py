"""The text encoder: the text half of any CLIP of transformers, frozen."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    AltCLIPModel,
    AutoConfig,
    AutoTokenizer,
    ChineseCLIPModel,
    CLIPTextModelWithProjection,
    MetaClip2TextModelWithProjection,
)

from ramflow import storage
from ramflow.errors import UserError
from ramflow.progress import track
from ramflow.weights.clip import load_clip, one_line

IMAGE_HALF = [r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$"]
TOKENIZED_AT_A_TIME = 4096


class _Clip(CLIPTextModelWithProjection):
    """The text model of a folder that may hold a whole CLIP, whose other half is left in the file."""

    _keys_to_ignore_on_load_unexpected = IMAGE_HALF


class _MetaClip2(MetaClip2TextModelWithProjection):
    _keys_to_ignore_on_load_unexpected = IMAGE_HALF


KINDS: dict[str, Any] = {
    "clip": _Clip,
    "clip_text_model": _Clip,
    "metaclip_2": _MetaClip2,
    "metaclip_2_text_model": _MetaClip2,
    "chinese_clip": ChineseCLIPModel,
    "altclip": AltCLIPModel,
}
"""Model types of transformers whose vectors of a text do not depend on how far its batch is padded."""


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids, start and end included; those of the texts in ``cut`` are no longer than the limit now."""

    ids: list[array[int]]
    cut: list[bool]


class TextEncoder:
    """Texts to unit vectors in CLIP's shared space.

    ``width`` is that of a vector, ``limit`` the most tokens of a text that the model reads, ``identity`` what an
    artifact says of its encoder: type, width and the digest of its weights.
    """

    def __init__(self, clip: Path) -> None:
        """Load the tokenizer and the text model of a folder in transformers' layout; no code in it is run.

        Raises:
            UserError: transformers cannot read it, it is no CLIP, its weights want to run code, or some are missing.
        """
        with one_line(clip):
            config: Any = AutoConfig.from_pretrained(clip, trust_remote_code=False)
            if config.model_type not in KINDS:
                raise UserError(
                    f"{clip} is a {config.model_type} model, not CLIP: give one of the types {', '.join(KINDS)}"
                )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(clip, trust_remote_code=False)
            model, info = load_clip(KINDS[config.model_type], clip)
        absent = sorted(key for key in info["missing_keys"] if not key.startswith(("vision_model", "visual_proj")))
        if absent:
            raise UserError(f"{clip} lacks {len(absent)} weights of its text model, first {absent[0]}: fetch it again")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = _text_half(model).eval().requires_grad_(False).to(self._device)
        self.width: int = model.config.projection_dim
        self.limit: int = min(_positions(model.config), self._tokenizer.model_max_length)
        self.identity = {"type": config.model_type, "width": self.width, "weights": _weights_digest(clip)}

    def tokenize(self, texts: Sequence[str], label: str | None = None) -> Tokens:
        """Token ids of every text, cut at ``limit``; ``label`` shows the progress."""
        tokens = Tokens([], [])
        starts = range(0, len(texts), TOKENIZED_AT_A_TIME)
        for start in track(starts, label, len(starts)) if label else starts:
            part = list(texts[start : start + TOKENIZED_AT_A_TIME])
            ids: list[list[int]] = self._tokenizer(part, verbose=False)["input_ids"]
            long = [place for place, own in enumerate(ids) if len(own) > self.limit]
            if long:
                texts_cut = [part[place] for place in long]
                shorter = self._tokenizer(texts_cut, truncation=True, max_length=self.limit)["input_ids"]
                for place, own in zip(long, shorter, strict=True):
                    ids[place] = own
            tokens.ids.extend(array("i", own) for own in ids)
            tokens.cut.extend(place in long for place in range(len(ids)))
        return tokens

    def encode_tokens(self, ids: Sequence[array[int]], batch: int) -> Iterator[tuple[list[int], Tensor]]:
        """Yield places in ``ids`` and their unit vectors, float32 [at most batch, width] on the CPU, shortest first.

        Texts of about one length are encoded together: what is padded costs as much as what is not.
        """
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            yield places, self._vectors([ids[place].tolist() for place in places])

    def encode(self, texts: Sequence[str], batch: int, label: str | None = None) -> Tensor:
        """Unit vectors [texts, width] on the CPU, float32, in the order of ``texts``; ``label`` shows the progress."""
        vectors = torch.empty(len(texts), self.width)

        def fill() -> Iterator[int]:
            for places, some in self.encode_tokens(self.tokenize(texts).ids, batch):
                vectors[places] = some
                yield from places

        for _ in track(fill(), label, len(texts)) if label else fill():
            pass
        return vectors

    @torch.inference_mode()
    def _vectors(self, ids: list[list[int]]) -> Tensor:
        tokens = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt", verbose=False).to(self._device)
        if isinstance(self._model, (_Clip, _MetaClip2)):
            vectors: Tensor = self._model(**tokens).text_embeds
        else:
            vectors = self._model.get_text_features(**tokens).pooler_output
        return normalize(vectors.float(), dim=-1).cpu()


def _text_half(model: Any) -> Any:
    for name in ("vision_model", "visual_projection"):
        if hasattr(model, name):
            delattr(model, name)
    return model


def _positions(config: Any) -> int:
    """Most tokens that a text model has places for; RoBERTa's count from the padding token on."""
    text = getattr(config, "text_config", config)
    return int(text.max_position_embeddings) - (text.pad_token_id + 1 if config.model_type == "altclip" else 0)


def _weights_digest(clip: Path) -> str:
    files = sorted(p for p in clip.iterdir() if p.suffix in (".safetensors", ".bin"))
    digests = [storage.sha256_file(path) for path in files]
    return digests[0] if len(digests) == 1 else storage.sha256_bytes("\n".join(digests).encode())
