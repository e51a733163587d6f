"""Everything that was given, read: what the diagnoses look at."""

from __future__ import annotations

from dataclasses import dataclass

from ramflow.doctor.annotation_files import Annotations
from ramflow.doctor.checkpoint_file import Checkpoint
from ramflow.doctor.embedding_file import Embeddings
from ramflow.doctor.log_file import TrainingLog
from ramflow.doctor.tag_ids import TagIds
from ramflow.doctor.weights_file import Weights

FINE_TUNING_RATE = 1e-5
"""Above the rate of fine-tuning (5e-6), far below that of pretraining (1e-4)."""
SOME_ROWS = 10


@dataclass(frozen=True)
class Case:
    """What a user has of a run; any part may be missing."""

    log: TrainingLog | None = None
    checkpoint: Checkpoint | None = None
    weights: Weights | None = None
    tags: TagIds | None = None
    embeddings: Embeddings | None = None
    annotations: Annotations | None = None

    @property
    def tag_count(self) -> int | None:
        """Number of tags that the run was trained with, from the surest source; None: cannot be told."""
        if self.tags:
            return len(self.tags.names)
        if self.checkpoint and self.checkpoint.tags:
            return self.checkpoint.tags
        return self.embeddings.tags if self.embeddings else None

    @property
    def fine_tuning(self) -> bool:
        """The run is the second stage, at 384 pixels, rather than pretraining."""
        size = self.checkpoint.config.get("image_size") if self.checkpoint else None
        rates = self.log.last.series("lr") if self.log and self.log.writer == "public" else []
        slow = bool(rates) and len(rates) >= SOME_ROWS and max(rates) <= FINE_TUNING_RATE
        return size == 384 or slow or bool(self.log and self.log.fine_tuning)
