"""Caption vectors as they are on disk: sound rows, and the proof that some of them are their captions'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch.nn.functional import cosine_similarity

from ramflow.data.dataset import Dataset
from ramflow.data.vectors import CaptionVectors, caption_rows
from ramflow.embed.captions import Plan
from ramflow.embed.encoder import TextEncoder
from ramflow.embed.probe import row_checks
from ramflow.settings import EmbedSettings
from ramflow.verdict import Check, check

ROWS_AT_A_TIME = 1 << 16
PROBED = 256


def caption_row_checks(out: Path) -> list[Check]:
    """Checks ``embed.captions_finite`` and ``embed.captions_unit`` of the file in ``out``, read a slice at a time."""
    vectors = caption_rows(out)
    lengths = torch.empty(len(vectors), dtype=torch.float16)
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        rows = torch.from_numpy(np.array(vectors[start : start + ROWS_AT_A_TIME]))
        lengths[start : start + len(rows)] = rows.norm(dim=-1, dtype=torch.float32).half()
    return row_checks("captions", lengths[:, None])  # a number is as long as it is large


def probe_captions(
    dataset: Dataset, plan: Plan, encoder: TextEncoder, out: Path, settings: EmbedSettings
) -> list[Check]:
    """Encode some captions afresh, from the first to the last sample, and compare them with the rows of their samples.

    Returns:
        Check ``embed.caption_probe``, none where there is no caption.
    """
    with_caption = np.flatnonzero(np.diff(plan.offsets))
    if not len(with_caption):
        return []
    samples = with_caption[np.unique(np.linspace(0, len(with_caption) - 1, PROBED, dtype=np.int64))]
    chosen = dataset.scan().filter(pl.col("sample").is_in(samples.tolist())).select("captions").collect()
    fresh = encoder.encode(texts := [own[-1] for own in chosen["captions"].to_list()], settings.batch)
    stored = CaptionVectors(out)
    cosine = cosine_similarity(fresh, torch.stack([stored.of(sample)[-1] for sample in samples.tolist()]))
    far = (~(cosine >= settings.min_probe_cosine)).nonzero().flatten().tolist()
    return [
        check("embed.caption_probe", "error", len(far), len(samples),
              f"{len(far)} of {len(samples)} captions are stored with another vector than a fresh encoding gives "
              f"(cosine below {settings.min_probe_cosine:g})",
              examples=[f"sample {samples[i]}: {cosine[i]:.4f}: {texts[i]}" for i in far]),
    ]  # fmt: skip
