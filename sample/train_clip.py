"""A small CLIP in transformers' layout, trained on pairs of a pool picture and one of its texts."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pool
import torch
from choose import clean_title
from openclipart import Picture
from tokenizers import Tokenizer, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

VOCABULARY, LONGEST, WIDTH = 3000, 48, 128
BATCH, RATE, DECAY, SMALLEST_CROP = 128, 1e-3, 0.1, 0.45
SHARE_WRITTEN, SHARE_LIST, MOST_WORDS = 0.35, 0.35, 4  # people's own text; else a keyword list; most words of one
START, END = "<|startoftext|>", "<|endoftext|>"


def draw_text(picture: Picture, draw: random.Random) -> tuple[str, tuple[str, ...]]:
    """One text of a picture, and the keywords that make it true of any other picture (none: only equal texts match)."""
    written, keywords = pool.texts(picture), pool.usable_keywords(picture)
    if written and draw.random() < SHARE_WRITTEN:
        return draw.choice(written), ()
    if draw.random() < SHARE_LIST:
        words = draw.sample(keywords, draw.randint(1, min(MOST_WORDS, len(keywords))))
        return ", ".join(words), tuple(words)
    word = draw.choice(keywords)
    template = "a photo of a {}." if draw.random() < 0.7 else draw.choice(["clip art of {}.", "{}"])
    return template.format(word), (word,)


def build_tokenizer(part: pool.Part) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's own rules, learnt from the pool's texts; the end token has the highest id."""
    corpus = ["a photo of a clip art of a simple drawing that shows"] * 50
    for picture in part.pictures:
        corpus += [*pool.texts(picture), ", ".join(pool.usable_keywords(picture))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(alphabet) - 2, initial_alphabet=alphabet, end_of_word_suffix="</w>",
        min_frequency=2, show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    learnt = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    # Every byte, also as the last of a word, has a token of its own: no text is unknown.
    tokens = dict.fromkeys([*alphabet, *(f"{letter}</w>" for letter in alphabet), *(token for token, _ in learnt)])
    tokens.pop(START, None)
    tokens.pop(END, None)
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges_of(backend), model_max_length=LONGEST)


def merges_of(backend: Tokenizer) -> list[Any]:
    """The merge rules of a trained tokenizer, in order, as pairs."""
    return [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]


def create(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The model with fresh weights."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": LONGEST, "projection_dim": WIDTH,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 6, "num_attention_heads": 6,
        "image_size": pool.SIZE, "patch_size": 16, "projection_dim": WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def matches(drawn: list[tuple[str, tuple[str, ...]]], pictures: list[Picture]) -> Tensor:
    """[pictures, texts], 1.0 where the text is true of the picture: equal texts, or all its keywords are there."""
    table = torch.zeros(len(pictures), len(drawn))
    for row, (picture, (own, _)) in enumerate(zip(pictures, drawn, strict=True)):
        words = set(picture.keywords)
        for column, (text, needed) in enumerate(drawn):
            if text == own or (needed and words.issuperset(needed)):
                table[row, column] = 1.0
    return table


def contrastive_loss(logits: Tensor, table: Tensor) -> Tensor:
    """Cross-entropy both ways; all positives of a row share its target evenly. Shapes [pictures, texts]."""
    rows = -(functional.log_softmax(logits, 1) * table).sum(1) / table.sum(1)
    columns = -(functional.log_softmax(logits, 0) * table).sum(0) / table.sum(0)
    return (rows.mean() + columns.mean()) / 2


def train(part: pool.Part, tokenizer: CLIPTokenizer, epochs: int, seed: int) -> CLIPModel:
    """Contrastive training on a part of the pool, AdamW, cosine."""
    torch.manual_seed(seed)
    draw, word_draw = torch.Generator().manual_seed(seed), random.Random(seed)
    model = create(tokenizer).train()
    steps = epochs * (len(part.pictures) // BATCH)
    optimiser = torch.optim.AdamW(pool.parameter_groups(model, DECAY), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: pool.rate_factor(step, steps))
    started = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(part.pictures), generator=draw).split(BATCH):
            if len(rows) < BATCH:
                continue
            pictures = [part.pictures[row] for row in rows.tolist()]
            drawn = [draw_text(picture, word_draw) for picture in pictures]
            tokens = tokenizer([text for text, _ in drawn], padding=True, truncation=True, return_tensors="pt")
            images = pool.normalised(pool.augmented(part.pixels[rows], SMALLEST_CROP, draw), pool.CLIP)
            loss = contrastive_loss(model(pixel_values=images, **tokens).logits_per_image, matches(drawn, pictures))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            model.logit_scale.data.clamp_(max=4.6052)
            total += loss.item()
        print(f"clip epoch {epoch + 1}/{epochs} loss {total / (len(part.pictures) // BATCH):.3f} "
              f"{time.monotonic() - started:.0f} s", flush=True)
    return model


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Weights in float16, configuration, tokenizer and preprocessing, as `from_pretrained` expects them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mean, deviation = pool.CLIP
    CLIPImageProcessor(
        size={"shortest_edge": pool.SIZE}, crop_size={"height": pool.SIZE, "width": pool.SIZE},
        image_mean=list(mean), image_std=list(deviation),
    ).save_pretrained(folder)


def unit(features: Any) -> Tensor:
    """Rows of length 1, from a tensor or from the output object newer versions of transformers return."""
    return functional.normalize(getattr(features, "pooler_output", features), dim=-1)


@torch.inference_mode()
def figures(folder: Path, part: pool.Part) -> dict[str, object]:
    """Held-out figures of the files as saved: retrieval of people's titles, and keywords zero-shot."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)

    def encode(lines: list[str]) -> Tensor:
        tokens = tokenizer(lines, padding=True, truncation=True, return_tensors="pt")
        return unit(model.get_text_features(**tokens))

    pictures = [to_pil_image(square) for square in part.pixels]
    images = unit(model.get_image_features(**processor(pictures, return_tensors="pt")))
    titles = [clean_title(picture.title) for picture in part.pictures]
    titled = [row for row, title in enumerate(titles) if title]
    distinct = sorted({titles[row] for row in titled})
    best = (images[titled] @ encode(distinct).T).topk(5).indices.tolist()
    hits = [titles[row] in [distinct[column] for column in columns] for row, columns in zip(titled, best, strict=True)]
    keywords = sorted({word for picture in part.pictures for word in pool.usable_keywords(picture)})
    zero_shot = images @ encode([f"a photo of a {word}." for word in keywords]).T
    return {
        "title_recall_at_5": round(sum(hits) / len(hits), 4), "titles": len(distinct), "titled_pictures": len(titled),
        "chance_recall_at_5": round(5 / len(distinct), 4),
        "zero_shot": pool.mean_average_precision(zero_shot, part.labels(keywords), 3),
    }
