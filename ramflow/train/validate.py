"""The validation split while training: scored by all processes together, by tag status too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ramflow.data.dataset import Dataset
from ramflow.metrics import average_precisions, mean_average_precision, mean_average_precision_public
from ramflow.model.losses import tag_loss
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.scoring import Scores, score
from ramflow.settings import TrainSettings
from ramflow.tags import TagTable
from ramflow.train import ranks

MOST = 64
"""Images scored at a time: memory need not follow the training batch."""


def validation_scores(
    model: RamPlus,
    preprocessing: Preprocessing,
    dataset: Dataset,
    samples: npt.NDArray[np.int64],
    settings: TrainSettings,
) -> Scores:
    """Scores of ``samples``, in their order, on every process; dropped tags have no positive."""
    rank, world = ranks.rank(), ranks.world()
    batch = min(settings.batch, MOST)
    own = score(model, preprocessing, dataset, samples[rank::world], batch, "validate" if rank == 0 else "")
    scores = own if world == 1 else _together(own, len(samples), model.embeddings.device)
    scores.targets[:, dataset.tags.dropped] = False
    return scores


def _together(own: Scores, samples: int, device: torch.device) -> Scores:
    """The scores of all processes, put in order of the samples."""
    room = -(-samples // ranks.world())
    padded = torch.zeros(room, own.scores.shape[1] * 2, device=device)
    padded[: len(own.scores)] = torch.from_numpy(np.concatenate([own.scores, own.targets], axis=1)).to(device)
    numbers = torch.full((room,), -1, device=device)
    numbers[: len(own.samples)] = torch.tensor(own.samples, dtype=torch.int64)
    rows, every = ranks.gather(padded).cpu().numpy(), ranks.gather(numbers).cpu().numpy()
    order = np.flatnonzero(every >= 0)
    order = order[np.argsort(every[order], kind="stable")]
    scores, targets = np.split(rows[order], 2, axis=1)
    unreadable = sorted(path for part in ranks.hear(own.unreadable, device) for path in part)
    return Scores(np.ascontiguousarray(scores), targets > 0, every[order].tolist(), unreadable)


def validate(scores: Scores, tags: TagTable, mask: torch.Tensor) -> dict[str, Any]:
    """The row of a validation: mAP over all tags, over present and over rare ones (null where none is), loss per image.

    Args:
        scores: of the validation split.
        tags: with the status that the audit gave each.
        mask: true for tags that count in the loss [tags].
    """
    ap = average_precisions(scores.scores, scores.targets)
    logits = torch.from_numpy(scores.scores).logit(eps=1e-7)
    row: dict[str, Any] = {"mAP": mean_average_precision(ap), "mAP_public": mean_average_precision_public(ap)}
    for status in ("present", "rare"):
        of_status = ap[np.array([own == status for own in tags.status], dtype=bool)]
        mAP = mean_average_precision(of_status) if len(of_status) else float("nan")
        row[f"mAP_{status}"] = None if np.isnan(mAP) else mAP
    row["loss_tag"] = tag_loss(logits, torch.from_numpy(scores.targets), mask.cpu()).item()
    return row | {"images": len(scores.samples)}
