"""Which tag of a reference the rows of each tag belong to, told from the vectors alone.

Text vectors of tags are all close to one another (cosine 0.6 to 0.9), so they are whitened first; then a tag's own
vector stands out even under another template (figures: docs/embeddings.md). The assignment is the best
path through the similarities (Viterbi): going on from tag i to i + 1 on both sides is free, a jump costs something.
So dropped tags, shifts, moved blocks and permutations are all found, and a look-alike is no reason to jump.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.rows import pieces, tag_vectors, usable

SHRINKAGE = 0.01
"""Of the mean variance, added to every direction's before whitening."""
TIE = 1e-4
JUMP, LEAST_JUMP = 0.3, 0.01
"""Cost of a jump, in whitened cosine; the least for files that match exactly."""
EXACT, CLEAR, RUN, NOISY_RUN = 0.98, 0.15, 3, 6
"""A run of so many tags elsewhere counts, the longer one where the files do not match exactly. A tag on its own counts
if it is the mutual best and, in files that match exactly, exact; or clear, where most tags are on their own."""
LEAST_NEAREST, LEAST_SURE, MOST = 0.1, 0.5, 0.5


@dataclass(frozen=True)
class Alignment:
    """``target`` int64 [tags]: the reference's tag whose rows each candidate's tag has, -1 where nothing says so.

    ``found`` is false where the two files' vectors have nothing to do with each other. ``strangers``: pairs (tag,
    nearest tag of the reference) of the tags that are nearer to another tag than to their own.
    """

    target: Tensor
    found: bool
    strangers: list[tuple[int, int]]


def align(candidate: TagEmbeddings, reference: TagEmbeddings) -> Alignment:
    """Find each candidate tag's tag in the reference; the widths are equal.

    By the means of the tags' rows. Where the reference has one row for most tags and the candidate more, by that row
    and the candidate's rows at the place where it is found, mostly the first.
    """
    ours = tag_vectors(candidate)
    if candidate.mask.shape[1] == 1 or float(reference.mask.sum(1).float().median()) > 1:
        return align_vectors(ours, tag_vectors(reference))
    theirs = _rows_at(reference, torch.zeros(len(reference.mask), dtype=torch.int64))
    roughly = align_vectors(ours, theirs)
    places = torch.zeros(len(ours), dtype=torch.int64)
    if roughly.found:
        places = _places(candidate, theirs, roughly.target)
        common = places.mode().values
        places = common.expand_as(places) if (places == common).float().mean() >= MOST else places
    return align_vectors(_rows_at(candidate, places), theirs)


def align_vectors(ours: Tensor, theirs: Tensor) -> Alignment:
    """Align vectors of tags, [candidate's tags, width] and [reference's tags, width], of one space."""
    alike = _similarities(ours, theirs).numpy()
    path = _path(alike, JUMP)
    ids = np.arange(len(path))
    noise = 1.0 - float(np.median(alike[ids, path]))
    path = _path(alike, float(np.clip(noise / 2, LEAST_JUMP, JUMP)))
    nearest = alike[ids, path] >= alike.max(axis=1) - TIE
    sure = _sure(alike, path)
    known = _rows(alike, 1) & _rows(alike, 0)[path]
    share = float(nearest[known].mean()) if known.any() else 0.0
    found = share >= max(LEAST_NEAREST, min(0.5, 3 / len(path))) and float(sure.mean()) >= LEAST_SURE
    return Alignment(torch.from_numpy(np.where(sure & known, path, -1)), found, _strangers(alike))


def _rows_at(vectors: TagEmbeddings, places: Tensor) -> Tensor:
    """The usable row of every tag at ``places`` [tags], or its first usable one: [tags, width]."""
    result = []
    for piece in pieces(len(places)):
        rows, good = usable(vectors, piece)
        wanted = good.gather(1, places[piece, None])
        place = torch.where(wanted, places[piece, None], good.int().argmax(dim=1, keepdim=True))
        result.append(rows[torch.arange(len(rows)), place[:, 0]])
    return torch.cat(result)


def _places(candidate: TagEmbeddings, theirs: Tensor, target: Tensor) -> Tensor:
    """Which of a tag's rows is nearest to the reference's row of its target: [tags]."""
    result = []
    for piece in pieces(len(target)):
        rows, good = usable(candidate, piece)
        cosines = (rows @ theirs[target[piece].clamp_min(0), :, None]).squeeze(-1)
        result.append(cosines.masked_fill(~good, -2.0).argmax(dim=1))
    return torch.cat(result)


def _similarities(ours: Tensor, theirs: Tensor) -> Tensor:
    """Whitened cosines of vectors of tags, [candidate's tags, reference's tags]; zero where a tag has none."""
    ours, theirs = centred(ours), centred(theirs)
    turn = _whitening(torch.cat([ours, theirs]))
    return normalize(ours @ turn, dim=-1) @ normalize(theirs @ turn, dim=-1).T


def centred(vectors: Tensor) -> Tensor:
    """Vectors [tags, width] less their mean; those of tags without a row are zero and stay so."""
    some = vectors.any(dim=1)
    mean = vectors[some].mean(dim=0) if some.sum() > 1 else 0.0
    return (vectors - mean) * some[:, None]


def _whitening(centred: Tensor) -> Tensor:
    variance, directions = torch.linalg.eigh((centred.T @ centred).double() / len(centred))
    variance = variance.clamp_min(0.0)
    return (directions * (variance + SHRINKAGE * variance.mean() + 1e-12).rsqrt()).float()


def _path(similar: NDArray[np.float32], jump: float) -> NDArray[np.int64]:
    """The reference's tag of every candidate's tag on the path of the greatest sum of similarity less jumps."""
    tags, others = similar.shape
    score = similar[0] - jump * (np.arange(others) > 0)
    jumped, source = np.zeros((tags, others), dtype=bool), np.zeros(tags, dtype=np.int64)
    for tag in range(1, tags):
        source[tag] = score.argmax()
        from_jump = score[source[tag]] - jump
        go_on = np.concatenate(([-np.inf], score[:-1]))
        jumped[tag] = go_on < from_jump
        score = similar[tag] + np.maximum(go_on, from_jump)
    path = np.empty(tags, dtype=np.int64)
    path[-1] = score.argmax()
    for tag in range(tags - 1, 0, -1):
        path[tag - 1] = source[tag] if jumped[tag, path[tag]] else path[tag] - 1
    return path


def _sure(similar: NDArray[np.float32], path: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tags whose place on the path is no accident."""
    ids = np.arange(len(path))
    breaks = np.flatnonzero(np.diff(path - ids)) + 1
    lengths = np.concatenate([np.full(len(run), len(run)) for run in np.split(ids, breaks)])
    on_path = similar[ids, path]
    top = np.partition(similar, -2, axis=1)[:, -2:] if similar.shape[1] > 1 else np.column_stack([on_path - 1, on_path])
    mutual = (on_path >= top[:, 1] - TIE) & (on_path >= similar.max(axis=0)[path] - TIE)
    exact = bool(np.median(on_path) >= EXACT)
    in_run = (lengths >= (RUN if exact else NOISY_RUN)) | (path == ids)
    clear = (top[:, 1] - top[:, 0] >= CLEAR) & (in_run.mean() < MOST)
    return in_run | (mutual & ((exact & (on_path >= EXACT)) | clear))


def _rows(similar: NDArray[np.float32], axis: int) -> NDArray[np.bool_]:
    """Tags of the candidate (axis 1) or the reference (axis 0) that have a usable row."""
    return np.asarray(similar.any(axis=axis), dtype=np.bool_)


def _strangers(similar: NDArray[np.float32]) -> list[tuple[int, int]]:
    tags = min(similar.shape)
    known = _rows(similar, 1)[:tags] & _rows(similar, 0)[:tags]
    other = known & (similar.diagonal() < similar[:tags].max(axis=1) - TIE)
    return [(int(tag), int(similar[tag].argmax())) for tag in np.flatnonzero(other)]
