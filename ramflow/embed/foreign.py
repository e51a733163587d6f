"""Alignment across text encoders: their vectors have nothing in common, but similarities within a list do.

Windows of consecutive tags are laid along the reference's list by the correlation of their similarities. Where they
fit, tags are anchors; a linear map fitted to the anchors brings the reference into the candidate's space, and the
alignment of one encoder (``alignment.py``) does the rest. Finds tags dropped, put in or shifted, not a permutation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.alignment import Alignment, align_vectors, centred
from ramflow.embed.rows import tag_vectors

WINDOW = 32
FITS = 0.45
"""Correlation of a window's 496 similarities from which it fits; by chance the best of 4585 places has 0.2."""
LEAST_ANCHORS = 64
RIDGE = 0.1


def align_foreign(candidate: TagEmbeddings, reference: TagEmbeddings) -> Alignment | None:
    """Find each candidate tag's tag in a reference of another encoder, of any width; None if no windows fit."""
    ours, theirs = centred(tag_vectors(candidate)), centred(tag_vectors(reference))
    if min(len(ours), len(theirs)) < WINDOW:
        return None
    own, others = _anchors(ours, theirs)
    if len(own) < LEAST_ANCHORS:
        return None
    found = align_vectors(ours, theirs @ _map(theirs[others], ours[own]))
    known = (found.target >= 0).nonzero().flatten()
    if found.found and len(known) > len(own):
        found = align_vectors(ours, theirs @ _map(theirs[found.target[known]], ours[known]))
    return found if found.found else None


def _anchors(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of the candidate and the reference in windows that fit."""
    step = WINDOW // 2
    best = (_windows(ours, step) @ _windows(theirs, 1).T).max(dim=1)
    fits = best.values >= FITS
    within = torch.arange(WINDOW)
    own = (torch.arange(len(fits)) * step)[fits, None] + within
    return own.flatten(), (best.indices[fits, None] + within).flatten()


def _windows(vectors: Tensor, step: int) -> Tensor:
    """Similarities within every window of tags, standardised: [windows, pairs]."""
    parts = normalize(vectors, dim=-1).unfold(0, WINDOW, step)
    upper = torch.triu_indices(WINDOW, WINDOW, 1).unbind()
    similar = torch.stack([(part.T @ part)[upper] for part in parts])
    return normalize(similar - similar.mean(dim=1, keepdim=True), dim=1)


def _map(source: Tensor, wanted: Tensor) -> Tensor:
    """The linear map from ``source`` to ``wanted`` [pairs, width] by ridge regression."""
    squares = source.T @ source
    squares += RIDGE * squares.diagonal().mean() * torch.eye(len(squares))
    return torch.linalg.solve(squares, source.T @ wanted)
