"""Consistency of vectors: sound rows, and the proof that a tag's row is that tag's (F04, F06, F07)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.settings import EmbedSettings
from ramflow.verdict import Check, check

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
    spread = 1.0 - float(rows.double().mean(dim=0).norm()) ** 2
    constant = not spread >= MIN_SPREAD
    message = f"vectors of different tags differ by {spread:.2g} (1 - mean cosine), at least {MIN_SPREAD:g} is expected"
    return check("embed.constant", "error", len(rows) if constant else 0, len(rows), message)


def probe_tags(
    stored: TagEmbeddings,
    names: list[str],
    texts: list[list[str]],
    encode: Callable[[str], Tensor],
    settings: EmbedSettings,
) -> tuple[list[Check], dict[str, Any]]:
    """Encode a text of some tags afresh and compare with what is stored for them.

    Args:
        stored: the embeddings as read back from disk.
        names: the tag table's names.
        texts: the descriptions of every tag.
        encode: a text to its unit vector [width].
        settings: how many tags, and the least cosine.

    Returns:
        Checks ``embed.probe_cosine`` (stored row and fresh vector agree) and ``embed.identity`` (no other tag's row
        is nearer to the fresh vector; equal rows are a tie), and the figures min_probe_cosine and identity_rate.
    """
    probed = torch.linspace(0, len(names) - 1, min(settings.probe_tags, len(names))).round().long().tolist()
    cosines: list[float] = []
    strangers: list[str] = []
    for tag in probed:
        column = next(c for c, text in enumerate(texts[tag]) if text.strip())
        similar = (stored.embeddings @ encode(texts[tag][column])).masked_fill(~stored.mask, -1.0).nan_to_num(-1.0)
        cosines.append(float(similar[tag, column]))
        nearest = similar.amax(dim=1)
        if not float(nearest[tag]) >= float(nearest.max()) - TIE:
            strangers.append(f"{names[tag]}: nearest is {names[int(nearest.argmax())]}")
    far = [f"{names[t]}: {c:.6f}" for t, c in zip(probed, cosines, strict=True) if not c >= settings.min_probe_cosine]
    checks = [
        check("embed.probe_cosine", "error", len(far), len(probed),
              f"{len(far)} of {len(probed)} probed tags are stored with another vector than a fresh encoding gives "
              f"(cosine below {settings.min_probe_cosine:g})", examples=far),
        check("embed.identity", "error", len(strangers), len(probed),
              f"{len(strangers)} of {len(probed)} probed tags are nearer to another tag's row than to their own: "
              "do not train with rows that are not their tags'", examples=strangers),
    ]  # fmt: skip
    return checks, {"min_probe_cosine": round(min(cosines), 6), "identity_rate": 1 - len(strangers) / len(probed)}
