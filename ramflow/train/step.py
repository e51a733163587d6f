"""One optimiser step over the batch of all processes: micro-batches, gradients, the gate before the update.

Losses are sums over images, divided by the images of the whole batch, and every image meets the captions of the whole
batch. So it makes no difference to the gradient how the batch is cut over micro-batches and processes.

Whether the update happens is decided where the gradients are, by limits that are known before the step: the host never
waits for a step, it reads what came of it one step later.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from ramflow.errors import UserError
from ramflow.model.losses import Losses, Wanted
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.teacher import Teacher
from ramflow.progress import say
from ramflow.settings import TrainSettings
from ramflow.train import ranks
from ramflow.train.balance import Weights
from ramflow.train.guard import VALUES
from ramflow.train.monitors import GradientProbe, UpdateRatios, cosine, norm
from ramflow.train.profiling import StepProfile
from ramflow.train.samples import Batch

LOSSES = ("tag", "alignment", "distillation")
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class TagTargets:
    """What of the tags counts in the loss."""

    mask: torch.Tensor
    """Bool [tags]: false for tags that do not count."""
    floor: torch.Tensor | None
    """Targets of the tags where an image does not have them [tags]; None: 0 everywhere."""


@dataclass
class Reading:
    """What came of a step, on its way to the host."""

    step: int
    limits: tuple[float, ...]
    """Of :data:`ramflow.train.guard.VALUES`, the step's gate."""
    weights: Weights
    rate: float
    names: list[str]
    values: torch.Tensor
    """[names], on the host; ``ready`` says when."""
    ready: torch.cuda.Event | None = None
    skipped: list[tuple[int, str]] = field(default_factory=list)
    """Samples of this process that could not be decoded, and why."""

    def read(self) -> dict[str, float]:
        """The values by name, as soon as the step is done."""
        if self.ready is not None:
            self.ready.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """The same for a checkpoint."""
        values = self.read()
        return {"step": self.step, "limits": self.limits, "weights": self.weights, "rate": self.rate, "values": values,
                "skipped": self.skipped}  # fmt: skip

    @classmethod
    def of(cls, state: dict[str, Any]) -> Reading:
        """From :meth:`state`."""
        values = torch.tensor(list(state["values"].values()), dtype=torch.float64)
        weights = tuple(state["weights"])
        skipped = [(sample, reason) for sample, reason in state["skipped"]]
        limits, names = tuple(state["limits"]), list(state["values"])
        return cls(state["step"], limits, weights, state["rate"], names, values, None, skipped)


@dataclass(frozen=True)
class Shared:
    """What all processes know of a batch."""

    captions: torch.Tensor
    ids: torch.Tensor
    images: torch.Tensor
    """Number of images that count, float32 []."""
    stop: torch.Tensor
    skipped: torch.Tensor
    negatives: torch.Tensor
    """Weight of the alignment's negatives []."""


class TrainingForward(nn.Module):
    """Images to losses in one call, so that DDP sees every parameter used."""

    def __init__(self, model: RamPlus, preprocessing: Preprocessing, tags: TagTargets, precision: str) -> None:
        super().__init__()
        self.profile = StepProfile(model.embeddings.device, on=False)
        self.model = model
        self.preprocessing = preprocessing
        self.tags = tags
        self.in_bfloat16 = precision == "bfloat16"

    def forward(self, pixels: torch.Tensor, wanted: Wanted, negatives: torch.Tensor) -> list[torch.Tensor]:
        """Sums of the three losses over the images of ``pixels`` (uint8 [images, 3, size, size])."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            with self.profile.phase("encoder forward"):
                tokens = self.model.tokens(self.preprocessing.normalise(pixels))
            with self.profile.phase("head and losses"):
                losses: Losses = self.model.losses(
                    tokens, wanted, self.tags.mask, floor=self.tags.floor, negatives=negatives
                )
        return [losses.tag, losses.alignment, losses.distillation]


class Engine:
    """Model, optimiser and how a step is taken; the same on every process."""

    def __init__(
        self,
        model: RamPlus,
        teacher: Teacher,
        preprocessing: Preprocessing,
        tags: TagTargets,
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
    ) -> None:
        self.model, self.teacher, self.optimizer, self.settings = model, teacher, optimizer, settings
        self.device = model.embeddings.device
        self.share = -(-settings.batch // ranks.world())
        self.micro_batch = min(settings.micro_batch or self.share, self.share)
        self.parameters = list(model.parameters())
        self.encoder = list(model.encoder.parameters())
        self.probe = GradientProbe(list(model.named_parameters()))
        self.encoder_probe = GradientProbe(list(model.encoder.named_parameters()))
        self.ratios = UpdateRatios(model)
        self.inner = TrainingForward(model, preprocessing, tags, settings.precision)
        self.forward: nn.Module = self.inner
        if ranks.world() > 1:
            cards = [self.device] if self.device.type == "cuda" else None
            self.forward = DistributedDataParallel(
                self.inner, cards, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def step(
        self, batch: Batch, number: int, rate: float, limits: tuple[float, ...], weights: Weights, *,
        monitored: bool = False, stop: bool = False,
    ) -> Reading:  # fmt: skip
        """Take a step, unless a value is not finite or above its limit.

        Args:
            batch: this process's share, at most ``share`` images; may be empty.
            number: of the step, from 0; dropout and stochastic depth follow it and the process, not the past.
            rate: that the optimiser already has, for the reading.
            limits: of :data:`ramflow.train.guard.VALUES`, the same on every process.
            weights: of the three losses per image.
            monitored: measure the gradient of each loss, and what the update does.
            stop: this process was asked to end; all learn of it.

        Raises:
            UserError: the memory of one of several processes, or of a single image, is not enough.
        """
        shared = self._share(batch, stop)
        while True:
            torch.manual_seed(_seed(self.settings.seed, number, ranks.rank()))
            done = self._try(batch, shared, weights, monitored)
            if done is not None:
                break
        sums, samples = done
        return self._gate(number, rate, limits, weights, shared, sums, samples, batch)

    def fit(self, batch: Batch) -> None:
        """Halve the micro-batch until a forward and backward pass of it fits into the memory of every process.

        Args:
            batch: any images of the right sizes; nothing is learnt of them.
        """
        rows = torch.arange(self.micro_batch, device=self.device) % max(1, len(batch.samples))
        full = batch.mapped(lambda tensor: tensor[rows.to(tensor.device)])
        shared = Shared(full.captions, full.caption_ids, *torch.ones(4, device=self.device))
        with self._unsynchronised():
            while self._try(full, shared, (1.0, 1.0, 1.0), False, together=False) is None:
                pass
        self.optimizer.zero_grad()
        self.micro_batch = ranks.least(self.micro_batch, self.device)

    def _share(self, batch: Batch, stop: bool) -> Shared:
        room = self.share - len(batch.samples)
        counts = torch.tensor([len(batch.samples), int(stop), len(batch.skipped)], device=self.device)
        captions = nn.functional.pad(batch.captions, (0, 0, 0, room))
        ids = nn.functional.pad(batch.caption_ids, (0, room))
        counts = ranks.add_up(counts)
        captions, ids = ranks.gather(captions), ranks.gather(ids)
        present = (ids != 0).sum()
        negatives = (self.settings.balance.batch - 1) / (present - 1).clamp(min=1)
        return Shared(captions, ids, counts[0].float(), counts[1], counts[2], negatives)

    def _try(
        self, batch: Batch, shared: Shared, weights: Weights, monitored: bool, together: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """The gradients of a batch; None, and a smaller micro-batch, when memory is not enough."""
        try:
            return self._accumulate(batch, shared, weights, monitored)
        except torch.OutOfMemoryError:
            if together and ranks.world() > 1:
                raise UserError(
                    f"train: rank {ranks.rank()} ran out of memory at {self.micro_batch} images, which fitted before: "
                    "is something else on this card? Set train.micro_batch lower; the same command goes on"
                ) from None
        self._halve()
        return None

    def _halve(self) -> None:
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.micro_batch == 1:
            raise UserError(
                "train: one image does not fit into the memory: set train.recompute to blocks, or train.slice lower"
            )
        self.micro_batch = -(-self.micro_batch // 2)
        say(f"train: out of memory: micro-batches of {self.micro_batch} from here on, the same batch")

    def _accumulate(
        self, batch: Batch, shared: Shared, weights: Weights, monitored: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Leave the gradient of the weighted losses per image; return the sums of the losses, and probes of each."""
        self.optimizer.zero_grad()
        sums, samples = torch.zeros(3, device=self.device), None
        images = len(batch.samples)
        scale = ranks.world() / shared.images.clamp(min=1)  # DDP takes the mean over processes
        for first in range(0, max(1, images), self.micro_batch):
            part = _rows(batch, first, first + self.micro_batch)
            last = first + self.micro_batch >= images
            with nullcontext() if last else self._unsynchronised():
                losses = self._losses(part, shared)
                weighted = [weight * loss * scale for weight, loss in zip(weights, losses, strict=True)]
                if monitored and first == 0:
                    with self.inner.profile.phase("monitors"):
                        samples = self._sample_each(weighted, shared, min(images, self.micro_batch))
                with self.inner.profile.phase("encoder backward"):
                    torch.stack(weighted).sum().backward()
            sums += torch.stack([loss.detach() for loss in losses])
        return sums, samples

    def _losses(self, batch: Batch, shared: Shared) -> list[torch.Tensor]:
        with self.inner.profile.phase("teacher"):
            teacher = self.teacher(batch.teacher_pixels).clone()
        valid = batch.samples >= 0
        wanted = Wanted(batch.targets, teacher, valid, batch.caption_ids, shared.captions, shared.ids)
        losses: list[torch.Tensor] = self.forward(batch.pixels, wanted, shared.negatives)
        return losses

    def _sample_each(self, weighted: list[torch.Tensor], shared: Shared, images: int) -> torch.Tensor:
        """The gradient of each weighted loss on the encoder, from the first micro-batch of every process [3, kept]."""
        seen = ranks.add_up(torch.tensor(float(images), device=self.device)).clamp(min=1)
        grads = (torch.autograd.grad(loss, self.encoder, retain_graph=True, allow_unused=True) for loss in weighted)
        samples = torch.stack([self.encoder_probe.sample(grad) for grad in grads])
        return ranks.add_up(samples) / ranks.world() * (shared.images / seen)

    def _unsynchronised(self) -> AbstractContextManager[None]:
        forward = self.forward
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()

    @torch.no_grad()
    def _gate(
        self, number: int, rate: float, limits: tuple[float, ...], weights: Weights, shared: Shared, sums: torch.Tensor,
        samples: torch.Tensor | None, batch: Batch,
    ) -> Reading:  # fmt: skip
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm_of_all = get_total_norm(grads)
        losses = ranks.add_up(sums) / shared.images.clamp(min=1)
        values = torch.cat([losses, norm_of_all[None]])
        allowed = torch.tensor(limits, device=self.device)
        good = (values.isfinite() & (values <= allowed)).all() & (shared.images > 0)
        named = dict(zip(VALUES, values, strict=True))
        named |= {"images": shared.images, "stop": shared.stop, "skipped_images": shared.skipped,
                  "scale": self.model.reweighting.scale, "good": good}  # fmt: skip
        if samples is not None:
            named |= self._compare(samples)
            self.ratios.before()
        with self.inner.profile.phase("optimiser"):
            optimizer: Any = self.optimizer
            optimizer.grad_scale = (norm_of_all / self.settings.clip_norm).clamp(min=1)
            optimizer.found_inf = (~good).float()
            optimizer.step()
        if samples is not None:
            named |= {f"update_ratio.{group}": ratio for group, ratio in self.ratios.after().items()}
        skipped = [(s.sample, s.reason) for s in batch.skipped]
        host, ready = _to_host(torch.stack([value.detach().double() for value in named.values()]))
        return Reading(number, limits, weights, rate, list(named), host, ready, skipped)

    def _compare(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        """Norms and cosines of the gradients; those before are AdamW's first moment, which the update will change."""
        named = {f"grad_norm_{name}": norm(sample) for name, sample in zip(LOSSES, samples, strict=True)}
        named |= {f"cosine_{LOSSES[a]}_{LOSSES[b]}": cosine(samples[a], samples[b]) for a, b in PAIRS}
        before = self.probe.sample([self.optimizer.state[p]["exp_avg"] for p in self.parameters])
        named["cosine_previous"] = cosine(self.probe.sample([p.grad for p in self.parameters]), before)
        return named


def _rows(batch: Batch, first: int, end: int) -> Batch:
    """Some images of a batch; a placeholder, whose number is -1, where there is none."""
    if len(batch.samples):
        return batch.mapped(lambda tensor: tensor[first:end])
    placeholder = batch.mapped(lambda tensor: tensor.new_zeros((1, *tensor.shape[1:])))
    placeholder.samples.fill_(-1)
    return placeholder


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _to_host(values: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    if values.device.type != "cuda":
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record()
    return host, ready
