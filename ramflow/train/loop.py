"""The training loop: which step comes next, what is concluded from those behind it, when to validate and to keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils import get_total_norm

from ramflow.data.order import Order
from ramflow.errors import UserError
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.scoring import Scores, image_paths
from ramflow.model.teacher import Teacher
from ramflow.progress import say, track
from ramflow.settings import TrainSettings
from ramflow.train import ranks
from ramflow.train.balance import Weights, first_weights, rebalanced
from ramflow.train.checkpoint import Checkpoints, optimizer_tensors, restore_optimizer
from ramflow.train.detect import Context, Detector
from ramflow.train.ema import MovingAverage
from ramflow.train.guard import VALUES, Decision, Guard
from ramflow.train.logs import Logs, NoLogs
from ramflow.train.means import Means
from ramflow.train.relative import Baselines
from ramflow.train.samples import Batch, TrainingSamples, batches
from ramflow.train.schedule import describe_groups, learning_rate, make_optimizer, set_rate
from ramflow.train.speed import Speed
from ramflow.train.step import LOSSES, Engine, Reading, TagTargets
from ramflow.train.stop import Stopped, StopSignal
from ramflow.train.validate import validate, validation_scores

LAG = 1
"""Steps that are taken before what came of one is read: the host never waits for the step it has just begun."""
BENEFIT_OF_DOUBT = 10_000
"""Images ahead, to the end of the epoch at most, that are taken as readable when the share of unreadable ones is
judged: the first image of a run may be a bad one, and a bad one comes earlier in one epoch than in another."""


PATIENCE, SIGTERM_PATIENCE = 600.0, 10.0
"""Seconds that copying checkpoints to S3 may take when a run ends; when it is told to."""


@dataclass
class Position:
    """Where a run stands: steps done, the best validation so far, what was left out."""

    step: int = 0
    best_step: int = -1
    best_mAP: float = -1.0
    skipped_images: int = 0
    skipped_steps: int = 0
    rewinds: int = 0
    micro_batch: int = 0


@dataclass
class Trainer:
    """One run, the same on every process; process 0 writes to ``out``: checkpoints and logs, and where to go on."""

    model: RamPlus
    teacher: Teacher
    preprocessing: Preprocessing
    samples: TrainingSamples
    order: Order
    """Of the training split's usable samples."""
    validation: npt.NDArray[np.int64]
    """Numbers of the validation split's usable samples."""
    tags: TagTargets
    baselines: Baselines
    """Losses of predictors that look at no image."""
    context: Context
    """What the detectors may name as a cause."""
    settings: TrainSettings
    out: Path
    logs: Logs | NoLogs
    checkpoints: Checkpoints | None
    """None on all processes but 0."""
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        settings = self.settings
        self.device = self.model.embeddings.device
        self.optimizer = make_optimizer(self.model, settings)
        self.engine = Engine(self.model, self.teacher, self.preprocessing, self.tags, self.optimizer, settings)
        self.average = MovingAverage(self.model, settings.ema_decay) if settings.ema_decay else None
        self.steps_per_epoch = self.order.steps(settings.batch)
        self.total = settings.epochs * self.steps_per_epoch
        self.guard = Guard(settings.guard)
        self.detector = Detector(self.context)
        self.means = Means()
        self.weights: Weights = first_weights(settings.balance)
        self.readings: deque[Reading] = deque()
        self.speed = Speed(self.device)
        self.signal = StopSignal()
        self.patience = PATIENCE
        self.begun = 0

    def run(self) -> dict[str, torch.Tensor]:
        """Train to the last step; returns the weights that were best on the validation split.

        Raises:
            UserError: spikes or unreadable images were more than the settings allow.
            Stopped: SIGTERM came; a checkpoint of the last step is kept.
        """
        with self.signal:
            try:
                self._go_on()
                self._train()
            finally:
                if self.checkpoints:
                    self.checkpoints.close(self.patience)
                self._note_failures()
                self.logs.close()
        return self._best()

    def _train(self) -> None:
        self.model.train()
        if self.device.type == "cuda":
            self.engine.fit(self.samples.blank(1).to(self.device))
        for batch in self._steps():
            if self._settle(LAG):
                self._stop()
            self._step(batch)
            self.position.step += 1
            done = self.position.step
            self.speed.step(self.engine.micro_batch)
            last = done == self.total
            if last or done % self.settings.validate_every == 0:
                self._settle(0)
                self._validate()
            if last or done % self.settings.checkpoint_every == 0:
                self._checkpoint()

    def _step(self, batch: Batch) -> None:
        step, settings = self.position.step, self.settings
        rate = learning_rate(step, self.total, settings)
        set_rate(self.optimizer, rate)
        limits = tuple(float(np.float32(limit)) for limit in self.guard.limits(step))
        monitored = step % settings.monitor_every == 0
        reading = self.engine.step(
            batch, step, rate, limits, self.weights, monitored=monitored, stop=self.signal.received
        )
        self.readings.append(reading)
        if self.engine.micro_batch < self.position.micro_batch:
            self.logs.event(step, "out_of_memory", {"micro_batch": self.engine.micro_batch})
        self.position.micro_batch = self.engine.micro_batch
        if self.average:
            self.average.update()

    def _steps(self) -> Iterator[Batch]:
        start, first = self.position.step, ranks.rank() == 0
        items = batches(self.samples, self.order, self.settings, start, ranks.rank(), ranks.world())
        ready = self.speed.waiting(_ahead(items, self.device))
        return track(ready, "train", self.total, start) if first else ready

    # What came of steps behind

    def _settle(self, leave: int) -> bool:
        """Conclude from all readings but the newest ``leave``; whether a process was asked to stop."""
        stop = False
        while len(self.readings) > leave:
            reading = self.readings.popleft()
            values = reading.read()
            stop = stop or (values["stop"] > 0 and reading.step >= self.begun)
            if values["skipped_images"]:
                self._note_skipped(reading, int(values["skipped_images"]))
            if values["images"]:
                self._judge(reading, values)
        return stop

    def _judge(self, reading: Reading, values: dict[str, float]) -> None:
        gate = tuple(values[name] for name in VALUES)
        decision = self.guard.judge(reading.step, gate, reading.limits)
        accepted = decision.kind == "accept"
        assert accepted == bool(values["good"]), f"step {reading.step}: the gate and the guard differ: {values}"
        self.position.skipped_steps += not accepted
        step = reading.step
        if accepted:
            self.means.add(values)
        if step % self.settings.log_every == 0 or step + 1 == self.total:
            row = self._row(reading, values, accepted)
            if accepted:
                row |= self.means.row()
                self.means = Means()
            self.logs.row(step, "train", row)
            self.logs.speed(step, self.speed.since_last(self.settings.batch))
            for finding in self.detector.see({"step": step, "kind": "train", **row}):
                self.logs.event(step, finding.event, asdict(finding))
        if accepted and "grad_norm_tag" in values:
            norms = [values[f"grad_norm_{name}"] for name in LOSSES]
            self.weights = rebalanced(self.settings.balance, self.weights, norms)
        if not accepted:
            self._conclude(reading, decision, values)

    def _row(self, reading: Reading, values: dict[str, float], accepted: bool) -> dict[str, Any]:
        weighted = [weight * values[f"loss_{name}"] for weight, name in zip(reading.weights, LOSSES, strict=True)]
        known = {"images", "stop", "good", "skipped_images", *VALUES}
        prefix = "update_ratio."
        ratios = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        measured = {k: v for k, v in values.items() if k not in known and not k.startswith(prefix)}
        row = {
            "learning_rate": reading.rate,
            "loss": sum(weighted),
            **{name: values[name] for name in VALUES},
            **{f"weighted_{name}": value for name, value in zip(LOSSES, weighted, strict=True)},
            **self.baselines.relative(values),
            **measured,
            "skipped_images": self.position.skipped_images,
            "skipped_steps": self.position.skipped_steps,
            "accepted": accepted,
        }
        return row | ({"update_ratio": ratios} if ratios else {})

    def _conclude(self, reading: Reading, decision: Decision, values: dict[str, float]) -> None:
        """Write down what a spike was and what is done about it; go back, or stop, where the guard says so."""
        names = list(VALUES)
        self.logs.event(reading.step, "skip", {
            "reason": decision.reason, "sentence": decision.sentence,
            "values": {name: values[name] for name in names},
            "limits": dict(zip(names, reading.limits, strict=True)),
            "samples": self._keys(reading.step),
        })  # fmt: skip
        if decision.kind == "rewind":
            self._rewind(decision)
        elif decision.kind == "stop":
            raise UserError(decision.sentence)

    def _keys(self, step: int) -> list[str]:
        """Paths of the images of a step's batch, in their order over all processes."""
        epoch, place = divmod(step, self.steps_per_epoch)
        samples = self.order.at(epoch, place * self.settings.batch, (place + 1) * self.settings.batch)
        return image_paths(self.samples.dataset, samples.tolist()) if ranks.rank() == 0 else []

    def _note_skipped(self, reading: Reading, count: int) -> None:
        """An event for every image that could not be decoded; an error when they are more than settings allow."""
        everywhere = [item for part in ranks.hear(reading.skipped, self.device) for item in part]
        self.position.skipped_images += count
        paths = image_paths(self.samples.dataset, [sample for sample, _ in everywhere])
        for (sample, reason), path in zip(everywhere, paths, strict=True):
            self.logs.event(reading.step, "skipped_image", {"sample": sample, "path": path, "reason": reason})
        seen = self.order.seen(reading.step + 1, self.settings.batch)
        epoch_end = (reading.step // self.steps_per_epoch + 1) * len(self.order)
        judged = min(seen + BENEFIT_OF_DOUBT, epoch_end)
        if self.position.skipped_images > self.settings.max_skipped_share * judged:
            raise UserError(
                f"train: {self.position.skipped_images} of the first {seen} images cannot be decoded, more than "
                f"train.max_skipped_share {self.settings.max_skipped_share:g} allows, the last one {paths[-1]} "
                f"({everywhere[-1][1]}): fetch or pack the dataset again, or run audit again"
            )

    # Validation

    def validation_scores(self) -> Scores:
        """Scores of the validation split with the model's weights as they are now, of all processes together."""
        return validation_scores(self.model, self.preprocessing, self.samples.dataset, self.validation, self.settings)

    def _validate(self) -> None:
        row = validate(self.validation_scores(), self.samples.dataset.tags, self.tags.mask)
        mAP = row["mAP"]
        if self.average:
            with self.average.in_place():
                averaged = validate(self.validation_scores(), self.samples.dataset.tags, self.tags.mask)
            row |= {f"ema_{name}": value for name, value in averaged.items() if name != "images"}
            mAP = averaged["mAP"]
        step = self.position.step
        self.logs.row(step, "validation", row)
        for finding in self.detector.see({"step": step, "kind": "validation", **row}):
            self.logs.event(step, finding.event, asdict(finding))
        if ranks.rank() == 0:
            say(f"train: step {step} of {self.total}: validation mAP {mAP:.4f}, loss_tag {row['loss_tag']:.3f}")
        if mAP > self.position.best_mAP:
            self.position.best_mAP, self.position.best_step = mAP, step
            if self.checkpoints:
                self.checkpoints.save_best(step, self.average.tensors() if self.average else self._weights())

    def _weights(self) -> dict[str, torch.Tensor]:
        return dict(self.model.named_parameters())

    # Going on, going back, stopping

    def _checkpoint(self) -> None:
        if not self.checkpoints:
            return
        if not get_total_norm(list(self._weights().values())).isfinite():
            self.logs.event(self.position.step, "checkpoint", "not kept: the weights are not finite")
            return
        tensors = {"model": self._weights(), "optimizer": optimizer_tensors(self.model, self.optimizer)}
        if self.average:
            tensors["ema"] = self.average.tensors()
        state = {
            "position": asdict(self.position),
            "weights": self.weights,
            "guard": self.guard.state(),
            "detector": self.detector.state(),
            "means": self.means.state(),
            "readings": [reading.state() for reading in self.readings],
            "best_step": self.position.best_step,
        }
        self.checkpoints.save(self.position.step, tensors, state, self.logs.files())
        self._note_failures()

    def _note_failures(self) -> None:
        """An event for all that went wrong with checkpoints: training goes on without them."""
        for failure in self.checkpoints.failures() if self.checkpoints else []:
            line = failure.replace(f"{self.out}/", "")  # where a run was made is not part of what it made
            self.logs.event(self.position.step, "checkpoint", line)

    def _go_on(self) -> None:
        """Begin where the newest checkpoint is; without one, write the first: what cannot be written is known now."""
        for line in describe_groups(self.optimizer) if ranks.rank() == 0 else []:
            say(f"train: {line}")
        state = self._load(None)
        if state is None:
            self.position.micro_batch = self.engine.micro_batch
            self.logs.restore({}, 0)
            self._checkpoint()
            return
        self.position = Position(**state["position"])
        if state["best_step"] < 0:  # or its file is lost
            self.position.best_step, self.position.best_mAP = -1, -1.0
        self.engine.micro_batch = min(self.engine.micro_batch, self.position.micro_batch)
        tag, alignment, distillation = state["weights"]
        self.weights = (tag, alignment, distillation)
        self.guard.load(state["guard"])
        self.detector.load(state["detector"])
        self.means = Means(**state.get("means", {}))
        self.readings.extend(Reading.of(reading) for reading in state["readings"])
        self.begun = self.position.step
        self._note_failures()
        if ranks.rank() == 0 and self.position.step:
            say(f"train: going on after step {self.position.step} of {self.total}")

    def _rewind(self, decision: Decision) -> None:
        """Weights and optimiser of the newest checkpoint before the spikes; the batches since are left out."""
        step = self.position.step
        state = self._load(decision.before)
        self.readings.clear()  # of steps that were taken with the weights that are given up
        self.means = Means()
        self.position.rewinds += 1
        to = state["position"]["step"] if state else None
        self.logs.event(step, "rewind", {"to": to, "sentence": decision.sentence})

    def _load(self, at_most: int | None) -> dict[str, Any] | None:
        """Give every process the weights and the optimiser of a checkpoint, and return its state, or None."""
        kept = self.checkpoints
        found = ranks.on_every_rank(lambda: kept.load(at_most) if kept else None, self.device)
        state: dict[str, Any] | None = ranks.tell(found.state if found else None, self.device)
        if state is None:
            return None
        if found:
            self.model.load_state_dict(found.tensors["model"], strict=False)
            restore_optimizer(self.model, self.optimizer, found.tensors["optimizer"])
            if self.average:
                for name, average in self.average.tensors().items():
                    average.copy_(found.tensors["ema"][name])
            if at_most is None:
                self.logs.restore(found.logs, found.step)
        ranks.copy_from_first(self._weights().values())
        state_of_optimizer = optimizer_tensors(self.model, self.optimizer)
        ranks.copy_from_first(state_of_optimizer[name] for name in sorted(state_of_optimizer))
        if self.average:
            ranks.copy_from_first(self.average.tensors().values())
        return state

    def _stop(self) -> None:
        self._checkpoint()
        self.patience = SIGTERM_PATIENCE
        raise Stopped(
            f"train: stopped by SIGTERM after step {self.position.step} of {self.total}: "
            "a checkpoint is kept, the same command goes on"
        )

    def _best(self) -> dict[str, torch.Tensor]:
        """The weights of the best validation, on every process."""
        weights = {name: weight.detach() for name, weight in self._weights().items()}
        if self.checkpoints:
            for name, tensor in self.checkpoints.best(self.position.best_step).items():
                weights[name].copy_(tensor)
        ranks.copy_from_first(weights.values())
        return weights


def _ahead(items: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device; on a GPU the next one is copied while a step is taken."""
    if device.type != "cuda":
        yield from items
        return
    stream, before = torch.cuda.Stream(device), None
    for item in items:
        with torch.cuda.stream(stream):
            moved = item.to(device)
        if before is not None:
            yield before
        torch.cuda.current_stream(device).wait_stream(stream)
        before = moved.mapped(_used_here)
    if before is not None:
        yield before


def _used_here(tensor: torch.Tensor) -> torch.Tensor:
    tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor
