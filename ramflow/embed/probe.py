"""Consistency of vectors: sound rows, and the proof that a tag's row is that tag's (F04, F06, F07)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.nearest import nearest_rows
from ramflow.errors import UserError
from ramflow.settings import EmbedSettings
from ramflow.verdict import Check, check, share_of

MIN_SPREAD = 1e-4
TIE = 1e-6


def row_checks(name: str, rows: Tensor) -> list[Check]:
    """Checks ``embed.NAME_finite`` and ``embed.NAME_unit`` of vectors [rows, width], float32 or float16."""
    lengths = rows.norm(dim=-1, dtype=torch.float32)
    finite = lengths.isfinite()
    tolerance = 1e-5 if rows.dtype == torch.float32 else 2e-3
    unequal = finite & ((lengths - 1).abs() > tolerance)
    return [
        _rows_check(f"embed.{name}_finite", ~finite, "rows hold NaN or infinity: is the CLIP whole?"),
        _rows_check(f"embed.{name}_unit", unequal, "rows are not of length 1: is the CLIP whole?"),
    ]


def _rows_check(id: str, faulty: Tensor, message: str) -> Check:
    rows = faulty.nonzero().flatten().tolist()
    text = f"{len(rows)} of {len(faulty)} {message}"
    return check(id, "error", len(rows), len(faulty), text, examples=[f"row {row}" for row in rows])


def spread_check(rows: Tensor) -> Check:
    """Check ``embed.constant`` of unit rows [rows, width]: the encoder does not say the same of every text."""
    spread = 1.0 - float(rows.mean(dim=0, dtype=torch.float64).norm()) ** 2
    constant = not spread >= MIN_SPREAD
    message = f"vectors of different tags differ by {spread:.2g} (1 - mean cosine), at least {MIN_SPREAD:g} is expected"
    return check("embed.constant", "error", len(rows) if constant else 0, len(rows), message)


def probe_all(
    stored: TagEmbeddings,
    names: Sequence[str],
    texts: Sequence[Sequence[str]],
    encode: Callable[[list[str]], Tensor],
    settings: EmbedSettings,
) -> tuple[list[Check], dict[str, Any]]:
    """Encode a text of every tag afresh and look for the nearest row among the rows of all tags.

    Args:
        stored: the embeddings as read back from disk.
        names: the tag table's names.
        texts: the texts of every tag, in any order; blank ones are passed over. Tag 0 is probed with its first text,
            tag 1 with its second, and so on, round and round: all places of a tag have their turn.
        encode: texts to unit vectors [texts, width].
        settings: the least cosine and identity rate.

    Returns:
        Checks ``embed.probe_cosine`` (a row of the tag is the fresh vector) and ``embed.identity`` (no other tag's row
        is nearer to it; equal rows are a tie), and the figures min_probe_cosine and identity_rate.
    """
    fresh = encode([_text(own, tag) for tag, own in enumerate(texts)])
    if fresh.shape[1] != stored.embeddings.shape[2]:
        raise UserError(
            f"the embeddings are {stored.embeddings.shape[2]} wide, the text encoder's vectors {fresh.shape[1]}: "
            "they are of another encoder"
        )
    near = nearest_rows(stored, fresh)
    own = near.own
    elsewhere = (near.tag != torch.arange(len(own))) & (own < near.best - TIE)
    strangers = (elsewhere | (own < 0)).nonzero().flatten().tolist()
    far = (own < settings.min_probe_cosine).nonzero().flatten().tolist()
    total = len(names)
    checks = [
        check("embed.probe_cosine", "error", len(far), total,
              f"{len(far)} of {total} tags are stored with another vector than a fresh encoding gives "
              f"(cosine below {settings.min_probe_cosine:g})", examples=[f"{names[t]}: {own[t]:.6f}" for t in far]),
        check("embed.identity", "error", len(strangers), total,
              f"{len(strangers)} of {total} tags are nearer to another tag's row than to their own: "
              "do not train with rows that are not their tags'", limit=share_of(1 - settings.min_identity, total),
              examples=[f"{names[tag]}: nearest is {names[int(near.tag[tag])]}" for tag in strangers]),
    ]  # fmt: skip
    return checks, {"min_probe_cosine": round(float(own.min()), 6), "identity_rate": 1 - len(strangers) / total}


def _text(own: Sequence[str], tag: int) -> str:
    some = [text for text in own if text.strip()]
    return some[tag % len(some)]
