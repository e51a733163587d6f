"""Learning rate and parameter groups: functions of the global step and of the model, nothing hidden (F23, F25)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ramflow.settings import TrainSettings

NO_DECAY = ("relative_position_bias_table", "scale")


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """The rate of ``step`` (from 0) of ``total``: linear warm-up over the whole run's steps, then a cosine."""
    return batch_factor(settings) * _published_rate(step, total, settings)


def batch_factor(settings: TrainSettings) -> float:
    """What the rates of the settings are multiplied by for their effective batch (F24).

    ``square_root`` keeps the noise of Adam's updates (arXiv 2205.10287), ``linear`` that of plain gradient descent
    (arXiv 1706.02677).
    """
    ratio = settings.batch / settings.learning_rate_batch
    return {"constant": 1.0, "square_root": math.sqrt(ratio), "linear": ratio}[settings.learning_rate_rule]


def _published_rate(step: int, total: int, settings: TrainSettings) -> float:
    warmup = settings.warmup_steps
    if step < warmup:
        share = step / warmup
        return settings.warmup_learning_rate + share * (settings.learning_rate - settings.warmup_learning_rate)
    share = (step - warmup) / max(1, total - 1 - warmup)
    cosine = (1 + math.cos(math.pi * min(1.0, share))) / 2
    return settings.min_learning_rate + cosine * (settings.learning_rate - settings.min_learning_rate)


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Parameters by decay and rate; ``share`` of a group is its rate as a share of the schedule's.

    Matrices decay; norms, biases, position tables and the re-weighting scale do not. Pretrained weights, the encoder's,
    take ``pretrained_share`` of the rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim < 2 or name.endswith(NO_DECAY) else settings.weight_decay
        pretrained = name.startswith("encoder.") and not settings.from_scratch
        groups.setdefault((decay, settings.pretrained_share if pretrained else 1.0), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "share": share} for (decay, share), p in groups.items()]


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW over :func:`parameter_groups`, its state made at once: its memory is taken before step 1."""
    optimizer = torch.optim.AdamW(parameter_groups(model, settings), lr=settings.learning_rate, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


def describe_groups(optimizer: torch.optim.Optimizer) -> list[str]:
    """A line a group: how many numbers, their decay and their share of the rate (F25)."""
    return [
        f"{sum(p.numel() for p in group['params']) / 1e6:.2f} M parameters in {len(group['params'])} tensors: "
        f"weight decay {group['weight_decay']:g}, {group['share']:g} of the learning rate"
        for group in optimizer.param_groups
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
