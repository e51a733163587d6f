"""The curves of a training run: losses, gradients, updates, validation, and how fast it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ramflow.report import charts
from ramflow.report.charts import Line, Mark
from ramflow.report.text import number, score

Rows = list[dict[str, Any]]

THREE = ("tag", "alignment", "distillation")
LOSSES = (
    ("loss", "Weighted sum", "the three losses, weighted"),
    ("loss_tag", "Tags", "asymmetric loss over the tags"),
    ("loss_alignment", "Alignment", "images against captions"),
    ("loss_distillation", "Distillation", "distance to the CLIP image feature"),
)
COSINES = (
    ("cosine_tag_alignment", "tags and alignment"),
    ("cosine_tag_distillation", "tags and distillation"),
    ("cosine_alignment_distillation", "alignment and distillation"),
)


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, a line on what it shows, its last value, and the legend: label and hue of a curve.

    ``width`` is its share of the page, half or quarter.
    """

    title: str
    note: str
    svg: Markup
    last: str = ""
    legend: tuple[tuple[str, int], ...] = ()
    width: str = "half"


def best(log: Rows) -> tuple[float | None, int]:
    """The highest mAP of the validations, and its step: those weights are the model."""
    key = "ema_mAP" if any("ema_mAP" in row for row in log) else "mAP"
    steps, values = _line(log, key, key).drawn()
    return (float(values.max()), int(steps[values.argmax()])) if len(values) else (None, 0)


def validation_charts(log: Rows, scratch: Rows) -> list[Chart]:
    """mAP by step, beside the from-scratch run's where there is one; and by status of the tags."""
    first = "pretrained encoder" if scratch else "weights of the step"
    lines = [_line(log, "mAP", first, dots=True)]
    lines += [_line(scratch, "mAP", "from scratch", 2, dots=True)] if scratch else []
    lines += [_line(log, "ema_mAP", "averaged weights", 3, dots=True)]
    note = "mean average precision over the tags, by step"
    highest = f"best {score(best(log)[0])}"
    status = [_line(log, "mAP_present", "present", dots=True), _line(log, "mAP_rare", "rare", 2, dots=True)]
    by_status = _chart("Validation mAP by status", "of tags with enough images, and of rare ones", status, zero=True)
    return [*_chart("Validation mAP", note, lines, highest, zero=True, always=True), *by_status]


def loss_charts(log: Rows, marks: Sequence[Mark]) -> list[Chart]:
    """The losses: relative to predictors that look at no image, raw, and weighted; of accepted steps."""
    log = _accepted(log)
    relative = [_line(log, f"{name}_relative", name, hue, smooth=True) for hue, name in enumerate(THREE, 1)]
    found = _chart(
        "Losses, relative",
        "1 is the cost without looking at the image; for distillation, of predicting the mean; logarithmic",
        relative, log=True, marks=marks, reference=(1.0, "predict the mean"), always=True,
    )  # fmt: skip
    weighted = [_line(log, f"weighted_{name}", name, hue, smooth=True) for hue, name in enumerate(THREE, 1)]
    found += _chart("Losses, weighted", "what each adds to the sum; logarithmic", weighted, log=True, marks=marks)
    for key, title, note in LOSSES:
        line = _line(log, key, title, smooth=True)
        found += _chart(title, note, [line], _last(line), marks=marks, width="quarter", always=True)
    return found


def gradient_charts(log: Rows, marks: Sequence[Mark]) -> list[Chart]:
    """Norms and angles of gradients, sizes of updates, the learning rate and the re-weighting scale."""
    log = _accepted(log)
    norms = [_line(log, "grad_norm", "all weights")]
    norms += [_line(log, f"grad_norm_{name}", name, hue) for hue, name in enumerate(THREE, 2)]
    note = "of all weights, and of each weighted loss on the encoder; before clipping; logarithmic"
    found = _chart("Gradient norms", note, norms, log=True, marks=marks, always=True)
    angles = [_line(log, key, label, hue, smooth=True) for hue, (key, label) in enumerate(COSINES, 1)]
    note = "cosine between their gradients on the encoder; below 0 they pull apart"
    found += _chart("Do the losses agree", note, angles, reference=(0.0, ""))
    ratios = _update_ratios(log)
    for title, inside in (("Update to weight, encoder", True), ("Update to weight, the rest", False)):
        lines = [
            _line(ratios, group, group.removeprefix("encoder.").removeprefix("head.").replace("_", " "), hue)
            for hue, group in enumerate(_groups(ratios, inside), 1)
        ]
        found += _chart(title, "norm of a step's change over norm of the weights; logarithmic", lines, log=True)
    rate, turn, scale = (_line(log, key, key.replace("_", " "), smooth=key == "cosine_previous")
                         for key in ("learning_rate", "cosine_previous", "scale"))  # fmt: skip
    _, values = rate.drawn()
    peak = f"peak {number(float(values.max()))}" if len(values) else ""
    found += _chart("Direction", "cosine of a gradient to the steps before it", [turn], _last(turn), width="quarter")
    found += _chart("Re-weighting scale", "its logarithm, held below 4.61", [scale], _last(scale), width="quarter")
    return found + _chart("Learning rate", "by step", [rate], peak, zero=True, always=True)


def speed_charts(log: Rows) -> list[Chart]:
    """Throughput, waiting for data, memory and micro-batch, of speed.jsonl."""
    wanted = (
        ("images_per_second", "Images a second", "over all processes"),
        ("data_wait", "Waiting for data", "share of the time"),
        ("memory_gib", "Memory", "GiB at most, of process 0"),
        ("micro_batch", "Micro-batch", "images a process takes at a time"),
    )
    found = []
    for key, title, note in wanted:
        line = _line(log, key, title, smooth=key in ("images_per_second", "data_wait"))
        found += _chart(title, note, [line], _last(line), zero=True, width="quarter")
    return found


def _line(log: Rows, key: str, label: str, hue: int = 1, *, smooth: bool = False, dots: bool = False) -> Line:
    return Line(label, [row["step"] for row in log], [row.get(key) for row in log], hue, smooth, dots)


def _last(line: Line) -> str:
    _, values = line.drawn()
    return number(float(values[-1])) if len(values) else ""


def _chart(
    title: str,
    note: str,
    lines: Sequence[Line],
    last: str = "",
    *,
    log: bool = False,
    zero: bool = False,
    reference: tuple[float, str] | None = None,
    marks: Sequence[Mark] = (),
    width: str = "half",
    always: bool = False,
) -> list[Chart]:
    """A chart of the curves that have values; without one nothing, or an empty one with ``always``."""
    drawn = [line for line in lines if len(line.drawn(log)[0])]
    if not drawn and not always:
        return []
    svg = charts.line_chart(drawn, title, log=log, zero=zero, reference=reference, marks=marks)
    return [Chart(title, note, svg, last, tuple((line.label, line.hue) for line in drawn), width)]


def _accepted(log: Rows) -> Rows:
    """Without steps that were left out: they would flatten the curve, are marked, and the table has their values."""
    return [row for row in log if row.get("accepted", True)]


def _update_ratios(log: Rows) -> Rows:
    """Rows of the ratios, flat."""
    return [{"step": row["step"], **row["update_ratio"]} for row in log if row.get("update_ratio")]


def _groups(ratios: Rows, inside: bool) -> list[str]:
    """Groups of layers of the encoder, or outside it, in the order in which they come first."""
    names = dict.fromkeys(key for row in ratios for key in row if key != "step")
    return [name for name in names if name.startswith("encoder.") == inside]
