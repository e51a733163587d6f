"""The stored row that is nearest to a tag's fresh vector, among the rows of all tags.

All rows against all fresh vectors of 4585 x 51 x 512 are 1.1 TFLOP. But where a tag's own row is close to its fresh
vector, a nearer one must be close as well, so its place along any direction is nearly the same: rows are sorted along
one, and a narrow window of them holds all that can be nearer. The other tags, which are wrong anyway, take the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.rows import pieces, usable

CLOSE = 0.014
"""Distance of the own row up to which the window is narrow: a cosine of 0.9999."""
ROUNDING = 1e-6
VECTORS_AT_A_TIME = 512


@dataclass(frozen=True)
class Nearest:
    """What is nearest to the fresh vector of each tag.

    ``own`` [tags] is the cosine with the nearest of its own rows, -1 where none is usable; ``best`` and ``tag`` [tags]
    are those of the nearest row of all tags.
    """

    own: Tensor
    best: Tensor
    tag: Tensor


def nearest_rows(stored: TagEmbeddings, fresh: Tensor) -> Nearest:
    """Search the usable rows for the one nearest to each fresh unit vector [tags, width]."""
    parts = [_own(stored, fresh, piece) for piece in pieces(len(fresh))]
    own, distance = (torch.cat(some) for some in zip(*parts, strict=True))
    found = Nearest(own, own.clone(), torch.arange(len(fresh)))
    close = distance <= CLOSE
    _by_window(stored, fresh, close.nonzero().flatten(), distance, found)
    others = (~close).nonzero().flatten()
    for start in range(0, len(others), VECTORS_AT_A_TIME):
        _by_product(stored, fresh, others[start : start + VECTORS_AT_A_TIME], found)
    return found


def _own(stored: TagEmbeddings, fresh: Tensor, piece: slice) -> tuple[Tensor, Tensor]:
    """Cosine with the nearest of a tag's own rows, and the distance to it, free of the cosine's rounding."""
    rows, good = usable(stored, piece)
    best, place = (rows @ fresh[piece, :, None]).squeeze(-1).masked_fill(~good, -1.0).max(dim=1)
    return best, (rows[torch.arange(len(rows)), place] - fresh[piece]).norm(dim=1)


def _by_window(stored: TagEmbeddings, fresh: Tensor, tags: Tensor, distance: Tensor, found: Nearest) -> None:
    if not len(tags):
        return
    centred = (fresh - fresh.mean(dim=0)).double()
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1].float()
    places = []
    for piece in pieces(len(stored.mask)):
        rows, good = usable(stored, piece)
        places.append((rows @ direction).masked_fill(~good, torch.inf).flatten())
    along, order = torch.cat(places).sort()
    middle = fresh[tags] @ direction
    reach = distance[tags] + ROUNDING
    first, last = torch.searchsorted(along, middle - reach), torch.searchsorted(along, middle + reach, right=True)
    rows, each = stored.embeddings.flatten(0, 1), stored.mask.shape[1]
    for tag, start, end in zip(tags.tolist(), first.tolist(), last.tolist(), strict=True):
        some = order[start:end]
        near = rows[some]
        cosines = (near @ fresh[tag]) / near.norm(dim=1)
        if len(some) and (top := cosines.max(dim=0)).values > found.best[tag]:
            found.best[tag], found.tag[tag] = top.values, some[top.indices] // each


def _by_product(stored: TagEmbeddings, fresh: Tensor, tags: Tensor, found: Nearest) -> None:
    for piece in pieces(len(stored.mask)):
        rows, good = usable(stored, piece)
        cosines = (rows.flatten(0, 1) @ fresh[tags].T).view(*rows.shape[:2], -1)
        top = cosines.masked_fill_(~good[..., None], -1.0).amax(dim=1).max(dim=0)
        better = top.values > found.best[tags]
        found.best[tags] = torch.where(better, top.values, found.best[tags])
        found.tag[tags] = torch.where(better, top.indices + piece.start, found.tag[tags])
