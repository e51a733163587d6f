"""What runs in processes of its own for ``benchmarks.embedding``: encoding texts in our way and in the plain way."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import unreclaimable

SIDES = ("ours", "plain")
TAGS, DESCRIPTIONS = 4585, 51
DECILES = (2, 28, 39, 49, 56, 59, 61, 63, 65, 67, 73)
"""Words of a description, at every tenth of those of the public file of 200 rare tags."""
TOKENS_A_WORD = 1.3
"""Of prose in OpenAI's tokenizer, about."""
BATCH = 64
"""What two cores like best; a GPU wants the setting's default."""
LIMIT = 77

KINDS = ("descriptions", "captions")

Rates = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Way:
    """A way to encode: the order that texts are taken in, and a batch, which returns the tokens it gave the model."""

    order: Callable[[list[str]], list[str]]
    encode: Callable[[list[str]], int]


def rates(side: str, folder: str, data: str, timed: int, scale: float) -> Rates:
    """For descriptions and captions: texts a second, tokens a text that the model is given, and more.

    Args:
        side: "ours" or "plain".
        folder: of the text model.
        data: the packed set of the captions.
        timed: texts that are timed, about.
        scale: share of the tags.

    Returns:
        By kind of texts: ``rate`` (texts a second, distinct or not), ``tokens`` (a text), ``distinct`` (share of the
        texts that are the first of their kind), ``texts`` (that were timed).
    """
    descriptions = _descriptions(folder, max(20, round(TAGS * min(1.0, scale))))
    shares = {"descriptions": len(set(descriptions)) / len(descriptions), "captions": _distinct(data)}
    own = {"descriptions": descriptions, "captions": _captions(data)}
    way = {"ours": _ours, "plain": _plain}[side](folder)
    return {texts: _timed(texts, side, own[texts], shares[texts], way, timed) for texts in KINDS}


def _timed(texts: str, side: str, own: list[str], distinct: float, way: Way, timed: int) -> dict[str, float]:
    size = DESCRIPTIONS if (texts, side) == ("descriptions", "plain") else BATCH
    batches = way.order(own)
    batches = [batches[start : start + size] for start in range(0, len(batches), size)]
    step = max(1, len(batches) * size // timed)
    chosen = batches[step // 2 :: step]
    way.encode(chosen[0][:2])
    start = time.perf_counter()
    tokens = sum(map(way.encode, chosen))
    seconds = time.perf_counter() - start
    count = sum(map(len, chosen))
    share = distinct if side == "ours" else 1.0
    return {"rate": count / seconds / share, "tokens": tokens / count, "distinct": distinct, "texts": count}


def _ours(folder: str) -> Way:
    from ramflow.embed.encoder import TextEncoder

    encoder = TextEncoder(Path(folder))

    def order(texts: list[str]) -> list[str]:
        own = list(dict.fromkeys(texts))
        lengths = [len(ids) for ids in encoder.tokenize(own).ids]
        return [own[place] for place in np.argsort(lengths, kind="stable")]

    def encode(batch: list[str]) -> int:
        ids = encoder.tokenize(batch).ids
        for _ in encoder.encode_tokens(ids, len(ids)):
            pass
        return max(map(len, ids)) * len(ids)

    return Way(order, encode)


def _plain(folder: str) -> Way:
    import torch
    from transformers import AutoTokenizer, CLIPTextModelWithProjection
    from transformers.utils import logging

    logging.set_verbosity_error()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    whole: Any = CLIPTextModelWithProjection
    model = whole.from_pretrained(folder, dtype=torch.float32).eval()
    limit = model.config.max_position_embeddings

    def encode(batch: list[str]) -> int:
        padded = tokenizer(batch, padding="max_length", truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            vectors = model(**padded).text_embeds
            assert (vectors / vectors.norm(dim=-1, keepdim=True)).isfinite().all()
        return int(padded["input_ids"].numel())

    return Way(list, encode)


def _descriptions(folder: str, tags: int) -> list[str]:
    """A template and 50 other texts a tag, one tag after another, as long in tokens as those of the public file.

    They are of words that are one token each for the tokenizer in ``folder``.
    """
    vocabulary = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(word[:-4] for word in vocabulary if word.endswith("</w>") and word[:-4].isalpha() and len(word) > 7)
    random = np.random.default_rng(5)
    texts = []
    for tag in range(tags):
        texts.append(f"a photo of a {words[tag % len(words)]} {tag}.")
        lengths = TOKENS_A_WORD * np.interp(random.uniform(0, 10, DESCRIPTIONS - 1), range(11), DECILES)
        for count in lengths.astype(int):
            texts.append(" ".join(words[number] for number in random.integers(0, len(words), count)))
    return texts


def _captions(data: str) -> list[str]:
    """The captions of a chunk in the middle of the set."""
    from ramflow.data.dataset import Dataset
    from ramflow.embed.captions import SAMPLES_A_CHUNK

    dataset = Dataset(Path(data))
    start = max(0, (len(dataset) - SAMPLES_A_CHUNK) // 2)
    rows = dataset.scan().select("captions").slice(start, SAMPLES_A_CHUNK).collect()["captions"]
    texts: list[str] = rows.explode(empty_as_null=False).to_list()
    return texts


def _distinct(data: str) -> float:
    """The share of the captions of the whole set that are the first of their text."""
    from ramflow.data.dataset import Dataset
    from ramflow.embed.captions import make_plan

    plan = make_plan(Dataset(Path(data)))
    return sum(int(plan.own(rows).sum()) for _, rows in plan.chunks) / len(plan.first)


def embed(data: str, clip: str, out: str) -> dict[str, float]:
    """What the stage does with the captions of a packed set; ``before`` it, bytes that the process has."""
    from ramflow.data.dataset import Dataset
    from ramflow.embed.captions import embed_captions, make_plan
    from ramflow.embed.encoder import TextEncoder

    shutil.rmtree(out, ignore_errors=True)
    (Path(out) / "pieces").mkdir(parents=True)
    dataset, encoder = Dataset(Path(data)), TextEncoder(Path(clip))
    encoder.encode(["a photo"] * BATCH, BATCH)
    before = unreclaimable(os.getpid())
    start = time.perf_counter()
    plan = make_plan(dataset)
    embed_captions(dataset, plan, encoder, BATCH, Path(out), Path(out) / "pieces")
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return {"captions": len(plan.first), "rate": len(plan.first) / seconds, "before": before}


def write_model(folder: str, clip: str, hidden: int, layers: int) -> None:
    """A text model as OpenAI's but for its size: random weights, 512 wide vectors, and the tokenizer of ``clip``."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    said = json.loads((Path(clip) / "config.json").read_text(encoding="utf-8"))["text_config"]
    ids = {name: said[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=LIMIT, projection_dim=512, **ids,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    settings = json.loads((Path(clip) / "tokenizer_config.json").read_text(encoding="utf-8"))
    content = json.dumps(settings | {"model_max_length": LIMIT})
    (Path(folder) / "tokenizer_config.json").write_text(content, encoding="utf-8")
    shutil.copy(Path(clip) / "tokenizer.json", folder)
