"""Learning rate and parameter groups: functions of the global step and of the model, nothing hidden (F23, F25)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ramflow.settings import TrainSettings

NO_DECAY = ("relative_position_bias_table", "scale")


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """The rate of ``step`` (from 0) of ``total``: linear warm-up over the whole run's steps, then a cosine."""
    warmup = settings.warmup_steps
    if step < warmup:
        share = step / warmup
        return settings.warmup_learning_rate + share * (settings.learning_rate - settings.warmup_learning_rate)
    share = (step - warmup) / max(1, total - 1 - warmup)
    cosine = (1 + math.cos(math.pi * min(1.0, share))) / 2
    return settings.min_learning_rate + cosine * (settings.learning_rate - settings.min_learning_rate)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices decay; norms, biases, position tables and the re-weighting scale do not."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (plain if parameter.ndim < 2 or name.endswith(NO_DECAY) else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW over :func:`parameter_groups`; the rate is set each step."""
    return torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
