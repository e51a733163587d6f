"""The training loop: a step, what is written of it, when to validate and when to keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from ramflow.data.order import Order
from ramflow.errors import UserError
from ramflow.metrics import average_precisions, mean_average_precision, mean_average_precision_public
from ramflow.model.losses import Losses, tag_loss
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.scoring import Scores, image_paths, score
from ramflow.model.teacher import Teacher
from ramflow.progress import say, track
from ramflow.settings import TrainSettings
from ramflow.train.checkpoint import FOLDER, Position, load_checkpoint, save_checkpoint
from ramflow.train.samples import Batch, TrainingSamples, batches
from ramflow.train.schedule import learning_rate, make_optimizer, set_rate

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
MAX_NOT_FINITE = 10
"""Steps in a row whose loss or gradient may be not finite."""
BENEFIT_OF_DOUBT = 10_000
"""Images ahead, to the end of the epoch at most, that are taken as readable when the share of unreadable ones is
judged: the first image of a run may be a bad one, and a bad one comes earlier in one epoch than in another."""


@dataclass
class Trainer:
    """One run: the model and all that a step needs. ``out`` holds its checkpoints and logs, and where to go on."""

    model: RamPlus
    teacher: Teacher
    preprocessing: Preprocessing
    samples: TrainingSamples
    order: Order
    """Of the training split's usable samples."""
    validation: npt.NDArray[np.int64]
    """Numbers of the validation split's usable samples."""
    tag_mask: torch.Tensor
    """False for tags whose loss does not count [tags]."""
    mean_distance: float
    """loss_distillation of always predicting the teacher's mean feature."""
    settings: TrainSettings
    out: Path

    def __post_init__(self) -> None:
        self.device = self.model.embeddings.device
        self.optimizer = make_optimizer(self.model, self.settings)
        self.steps_per_epoch = self.order.steps(self.settings.batch)
        self.total = self.settings.epochs * self.steps_per_epoch
        self.not_finite = 0
        (self.out / FOLDER).mkdir(exist_ok=True)
        self.position = load_checkpoint(self.out, self.model, self.optimizer) or Position()
        self._cut_log(METRICS_FILE, self.position.metrics_bytes)
        self._cut_log(EVENTS_FILE, self.position.events_bytes)

    def run(self) -> dict[str, torch.Tensor]:
        """Train to the last step; returns the weights that were best on the validation split."""
        if self.position.step:
            say(f"train: going on after step {self.position.step} of {self.total}")
        self.model.train()
        for batch in self._steps():
            self._note_skipped(batch)
            if len(batch.samples):
                self._step(batch)
            self.position.step += 1
            done = self.position.step
            if done % self.settings.validate_every == 0 or done == self.total:
                self._validate()
            if done % self.settings.checkpoint_every == 0 or done == self.total:
                self._checkpoint()
        return load_file(self._best_file(self.position.best_step))

    def _steps(self) -> Iterator[Batch]:
        start = self.position.step
        return track(batches(self.samples, self.order, self.settings, start), "train", self.total, start)

    def _note_skipped(self, batch: Batch) -> None:
        """An event for every image that could not be decoded; an error when they are more than settings allow."""
        if not batch.skipped:
            return
        paths = image_paths(self.samples.dataset, [skipped.sample for skipped in batch.skipped])
        for skipped, path in zip(batch.skipped, paths, strict=True):
            self.position.skipped_images += 1
            self._event("skipped_image", {"sample": skipped.sample, "path": path, "reason": skipped.reason})
        seen = self.order.seen(self.position.step + 1, self.settings.batch)
        epoch_end = (self.position.step // self.steps_per_epoch + 1) * len(self.order)
        judged = min(seen + BENEFIT_OF_DOUBT, epoch_end)
        if self.position.skipped_images > self.settings.max_skipped_share * judged:
            raise UserError(
                f"train: {self.position.skipped_images} of the first {seen} images cannot be decoded, more than "
                f"train.max_skipped_share {self.settings.max_skipped_share:g} allows, the last one {paths[-1]} "
                f"({batch.skipped[-1].reason}): fetch or pack the dataset again, or run audit again"
            )

    def _step(self, batch: Batch) -> None:
        step, settings = self.position.step, self.settings
        torch.manual_seed(settings.seed << 32 | step)  # dropout and stochastic depth follow the step, not the past
        rate = learning_rate(step, self.total, settings)
        set_rate(self.optimizer, rate)
        tokens, losses = self._forward(batch)
        weighted = [
            settings.loss.tag * losses.tag,
            settings.loss.alignment * losses.alignment,
            settings.loss.distillation * losses.distillation,
        ]
        logging = step % settings.log_every == 0 or step + 1 == self.total
        norms = _gradient_norms(weighted, tokens) if logging else []
        self.optimizer.zero_grad()
        loss = torch.stack(weighted).sum()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm))
        if not (norm < float("inf")):
            return self._leave_out(loss.item(), norm)
        self.not_finite = 0
        self.optimizer.step()
        if logging:
            self._log_step(rate, loss.item(), losses, norm, norms)
        return None

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, Losses]:
        batch = batch.to(self.device)
        teacher = self.teacher(batch.teacher_pixels).clone()
        bfloat16 = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            tokens = self.model.tokens(self.preprocessing.normalise(batch.pixels))
            losses = self.model.losses(
                tokens, batch.targets, self.tag_mask, batch.captions, batch.has_caption, teacher
            )
        return tokens, losses

    def _leave_out(self, loss: float, norm: float) -> None:
        self.not_finite += 1
        self._event("non_finite", f"loss {loss}, gradient norm {norm}: the update was left out")
        if self.not_finite == MAX_NOT_FINITE:
            raise UserError(
                f"train: loss or gradient not finite in {MAX_NOT_FINITE} steps in a row, up to step "
                f"{self.position.step}: lower train.learning_rate, or use train.precision float32"
            )

    def _log_step(self, rate: float, loss: float, losses: Losses, norm: float, norms: list[float]) -> None:
        distillation = losses.distillation.item()
        row = {
            "kind": "train",
            "learning_rate": rate,
            "loss": loss,
            "loss_tag": losses.tag.item(),
            "loss_alignment": losses.alignment.item(),
            "loss_distillation": distillation,
            "distillation_relative": distillation / self.mean_distance,
            "grad_norm": norm,
            **dict(zip(("grad_norm_tag", "grad_norm_alignment", "grad_norm_distillation"), norms, strict=True)),
            "scale": self.model.reweighting.scale.item(),
            "skipped_images": self.position.skipped_images,
        }
        self._write(METRICS_FILE, row)

    def _validate(self) -> None:
        scores = self.validation_scores()
        ap = average_precisions(scores.scores, scores.targets)
        mAP = mean_average_precision(ap)
        logits = torch.from_numpy(scores.scores).logit(eps=1e-7)
        loss = tag_loss(logits, torch.from_numpy(scores.targets), self.tag_mask.cpu()).item()
        row = {"kind": "validation", "mAP": mAP, "mAP_public": mean_average_precision_public(ap), "loss_tag": loss,
               "images": len(scores.samples)}  # fmt: skip
        self._write(METRICS_FILE, row)
        say(f"train: step {self.position.step} of {self.total}: validation mAP {mAP:.4f}, loss_tag {loss:.3f}")
        if mAP > self.position.best_mAP:
            save_file(self.model.state_dict(), self._best_file(self.position.step))
            self.position.best_mAP, self.position.best_step = mAP, self.position.step

    def validation_scores(self) -> Scores:
        """Scores of the validation split with the weights as they are now; dropped tags have no positive."""
        dataset = self.samples.dataset
        scores = score(self.model, self.preprocessing, dataset, self.validation, self.settings.batch, "validate")
        scores.targets[:, dataset.tags.dropped] = False
        return scores

    def _checkpoint(self) -> None:
        self.position.metrics_bytes = (self.out / METRICS_FILE).stat().st_size
        self.position.events_bytes = (self.out / EVENTS_FILE).stat().st_size
        save_checkpoint(self.out, self.model, self.optimizer, self.position, self.settings.keep_checkpoints)
        keep = self._best_file(self.position.best_step)
        for path in (self.out / FOLDER).glob("best-*.safetensors"):
            if path != keep:
                path.unlink()

    def _best_file(self, step: int) -> Path:
        return self.out / FOLDER / f"best-{step:08d}.safetensors"

    def _event(self, event: str, detail: str | dict[str, Any]) -> None:
        text = detail if isinstance(detail, str) else ", ".join(f"{key} {value}" for key, value in detail.items())
        say(f"train: step {self.position.step}: {event}: {text}")
        self._write(EVENTS_FILE, {"event": event, "detail": detail})

    def _write(self, name: str, row: dict[str, Any]) -> None:
        epoch = self.position.step / self.steps_per_epoch
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.position.step, "epoch": round(epoch, 4), **row}) + "\n")

    def _cut_log(self, name: str, size: int) -> None:
        """Forget rows that were written after the checkpoint that the run goes on from."""
        with (self.out / name).open("ab") as file:
            file.truncate(size)


def _gradient_norms(losses: list[torch.Tensor], tokens: torch.Tensor) -> list[float]:
    """The norm of each weighted loss's gradient at the image tokens, the place that all three share."""
    return [float(torch.autograd.grad(loss, tokens, retain_graph=True)[0].float().norm()) for loss in losses]
