"""What the page shows of training: curves, the settings that decide a run, and what happened on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ramflow.report import charts
from ramflow.report.artifacts import Run, reading
from ramflow.report.charts import Line
from ramflow.report.text import number, rows, score

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
MOST_EVENTS = 50

Rows = list[dict[str, Any]]

LOSSES = (
    ("loss", "Weighted sum", "the three losses, weighted"),
    ("loss_tag", "Tags", "asymmetric loss over the tags"),
    ("loss_alignment", "Alignment", "images against captions"),
    ("loss_distillation", "Distillation", "distance to the CLIP image feature"),
)
NORMS = (
    ("grad_norm", "all weights"),
    ("grad_norm_tag", "tags"),
    ("grad_norm_alignment", "alignment"),
    ("grad_norm_distillation", "distillation"),
)


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, a line on what it shows, its last value, and the legend: label and hue of a curve."""

    title: str
    note: str
    svg: Markup
    last: str = ""
    legend: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class TrainPart:
    """Training as the page shows it; events are step, name and detail."""

    step: int
    best: float | None
    best_step: int
    facts: list[tuple[str, str, str]]
    validation: Chart
    losses: list[Chart]
    relative: Chart
    rate: Chart
    norms: Chart
    events: list[tuple[str, str, str]]
    more_events: int


def train_part(run: Run, name: str = "train") -> TrainPart:
    """Read the logs of a training run, and the from-scratch run's validations where there is one.

    Raises:
        UserError: a file is damaged, or a row lacks a value.
    """
    log = run.lines(name, METRICS_FILE)
    events = run.lines(name, EVENTS_FILE)
    with reading(run.paths[name] / METRICS_FILE):
        training = [row for row in log if row["kind"] == "train"]
        validation = [row for row in log if row["kind"] == "validation"]
        best, best_step = _best(validation)
        return TrainPart(
            step=max((int(row["step"]) for row in log), default=0),
            best=best,
            best_step=best_step,
            facts=_facts(run.verdicts[name].settings),
            validation=_validation(validation, _scratch(run) if name == "train" else []),
            losses=[_loss(training, *loss) for loss in LOSSES],
            relative=_relative(training),
            rate=_rate(training),
            norms=_norms(training),
            events=[_event(event) for event in events[:MOST_EVENTS]],
            more_events=max(0, len(events) - MOST_EVENTS),
        )


def _scratch(run: Run) -> Rows:
    if not run.has("scratch"):
        return []
    return [row for row in run.lines("scratch", METRICS_FILE) if row["kind"] == "validation"]


def _line(log: Rows, key: str, label: str, hue: int = 1, *, smooth: bool = False, dots: bool = False) -> Line:
    return Line(label, [row["step"] for row in log], [row.get(key) for row in log], hue, smooth, dots)


def _last(line: Line) -> str:
    _, values = line.drawn()
    return number(float(values[-1])) if len(values) else ""


def _best(log: Rows) -> tuple[float | None, int]:
    """The highest mAP of the validations, and its step: those weights are the model."""
    steps, values = _line(log, "mAP", "mAP").drawn()
    return (float(values.max()), int(steps[values.argmax()])) if len(values) else (None, 0)


def _validation(log: Rows, scratch: Rows) -> Chart:
    lines = [_line(log, "mAP", "pretrained encoder", dots=True)]
    if scratch:
        lines.append(_line(scratch, "mAP", "from scratch", 2, dots=True))
    legend = tuple((line.label, line.hue) for line in lines)
    chart = charts.line_chart(lines, "mAP on the validation split", zero=True)
    return Chart(
        "Validation mAP", "mean average precision over the tags, by step", chart, f"best {score(_best(log)[0])}", legend
    )


def _loss(log: Rows, key: str, title: str, note: str) -> Chart:
    line = _line(log, key, title, smooth=True)
    return Chart(title, note, charts.line_chart([line], f"{title} loss per image"), _last(line))


def _relative(log: Rows) -> Chart:
    line = _line(log, "distillation_relative", "distillation", smooth=True)
    about, mean = "Distillation loss relative to predicting the mean", (1.0, "predict the mean")
    chart = charts.line_chart([line], about, log=True, reference=mean)
    return Chart(
        "Distillation, relative",
        "1 is the cost of predicting the mean; learning is below; logarithmic",
        chart,
        _last(line),
    )


def _rate(log: Rows) -> Chart:
    line = _line(log, "learning_rate", "learning rate")
    _, values = line.drawn()
    peak = f"peak {number(float(values.max()))}" if len(values) else ""
    return Chart("Learning rate", "by step", charts.line_chart([line], "Learning rate", zero=True), peak)


def _norms(log: Rows) -> Chart:
    lines = [_line(log, key, label, hue) for hue, (key, label) in enumerate(NORMS, 1)]
    chart = charts.line_chart(lines, "Gradient norms", log=True)
    note = "of all weights, and of each weighted loss at the image tokens; before clipping"
    return Chart("Gradient norms", note, chart, legend=tuple((line.label, line.hue) for line in lines))


def _event(event: dict[str, Any]) -> tuple[str, str, str]:
    detail = event.get("detail", "")
    text = ", ".join(f"{k} {v}" for k, v in rows(detail)) if isinstance(detail, dict) else str(detail)
    return number(event.get("step")), str(event.get("event", "")), text


def _facts(settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and remark of the settings that decide a run."""
    augment, loss = settings["augment"], settings["loss"]
    weights = " : ".join(f"{loss[key]:g}" for key in ("tag", "alignment", "distillation"))
    return [
        ("Epochs", number(settings["epochs"]), f"of batches of {number(settings['batch'])}"),
        ("Peak learning rate", number(settings["learning_rate"]), f"after {number(settings['warmup_steps'])} steps"),
        ("Precision", str(settings["precision"]), "losses in float32"),
        ("Smallest crop", f"{100 * augment['min_scale']:.3g} %", "of the image, which keeps all its tags"),
        ("RandAugment", f"{augment['operations']} × {augment['magnitude']}", "operations × strength, of 10"),
        ("Loss weights", weights, "tags : alignment : distillation"),
        ("Tags without images", str(settings["missing_tags"]), _missing_tags(settings["missing_tags"])),
    ]


def _missing_tags(choice: str) -> str:
    return "no loss on them" if choice == "mask" else "learnt as always absent"
