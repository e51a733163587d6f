"""Captions over the whole set: one caption on many images says little of any of them."""

from __future__ import annotations

import numpy as np
import polars as pl

from ramflow.audit.findings import Store, found
from ramflow.audit.text import shown
from ramflow.audit.whole import Keys, Samples, Whole, frequent


def write_shared_captions(whole: Whole, least: int, store: Store) -> None:
    """Add a failure for every caption that ``least`` records or more have; captions are the same to the letter."""
    hashes, counts = frequent(whole.hashes(), least)
    if not len(hashes):
        return
    shared = pl.DataFrame({"hash": hashes, "records": counts})
    detail = pl.format("caption {}, on {} images: {}", "number", "records", shown(pl.col("caption")))
    for chunk in whole.chunks:
        rows = pl.scan_parquet(chunk.captions).join(shared.lazy(), on="hash", maintain_order="left").collect()
        if not len(rows):
            continue
        row = rows["row"].to_numpy().astype(np.int64)
        path = pl.read_parquet(chunk.samples, columns=["image_path"]).to_series()
        described = rows.with_columns(
            pl.Series("sample", row + chunk.first), pl.Series("key", whole.keys(row + chunk.first)),
            image_path=path.gather(row),
        )  # fmt: skip
        store.add(found("text.shared_caption", described, detail).sort("sample", "image_path", "detail"))


def captions_each(whole: Whole, samples: Samples) -> tuple[Samples, Keys]:
    """All captions of ``samples`` (ascending): the place in ``samples`` and the hash of each."""
    places, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for chunk in whole.chunks:
        start, stop = np.searchsorted(samples, (chunk.first, chunk.first + chunk.rows))
        if start == stop:
            continue
        captions = pl.read_parquet(chunk.captions, columns=["row", "hash"])
        row = captions["row"].to_numpy().astype(np.int64) + chunk.first
        place = np.searchsorted(samples[start:stop], row) + start
        own = samples[place.clip(max=len(samples) - 1)] == row
        places.append(place[own])
        hashes.append(captions["hash"].to_numpy()[own])
    return np.concatenate(places), np.concatenate(hashes)
