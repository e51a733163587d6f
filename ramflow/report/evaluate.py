"""What the page shows of the evaluation: scores against baselines, and the best and worst tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ramflow.report import charts
from ramflow.report.artifacts import Run, reading
from ramflow.report.text import score, times

EVALUATION_FILE = "evaluation.json"
PER_TAG_FILE = "per_tag.parquet"
TAG_COLUMNS = ("name", "status", "positives", "ap", "ap_from_scratch", "threshold", "precision", "recall", "f1")


@dataclass(frozen=True)
class Bar:
    """One mAP of the comparison: who, how much, and its bar."""

    label: str
    note: str
    value: str
    svg: Markup


@dataclass(frozen=True)
class Tag:
    """One tag of the tables, figures as text; the bar's tick is the from-scratch run."""

    name: str
    status: str
    positives: int
    ap: str
    bar: Markup
    precision: str
    recall: str
    f1: str


@dataclass(frozen=True)
class EvaluatePart:
    """The evaluation as the page shows it; ratios are None where a baseline is missing."""

    mAP: float
    images: int
    tags: int
    tags_scored: int
    over_frequency: str | None
    over_scratch: str | None
    cards: list[tuple[str, str, str]]
    bars: list[Bar]
    best: list[Tag]
    worst: list[Tag]
    scratch: bool
    excluded: list[str]
    dropped: list[str]
    unreadable: list[str]


def evaluate_part(run: Run, tags_shown: int) -> EvaluatePart:
    """Read the evaluation.

    Args:
        run: the run.
        tags_shown: rows of each of the two tables.

    Raises:
        UserError: an artifact is damaged, or a score is missing.
    """
    content = run.json("evaluate", EVALUATION_FILE)
    with reading(run.paths["evaluate"] / EVALUATION_FILE):
        metrics = content["metrics"]
        frequency, scratch = (_baseline(content, name) for name in ("tag_frequency", "from_scratch"))
        mean = float(metrics["mAP"])
        best, worst = _tags(run, tags_shown)
        return EvaluatePart(
            mAP=mean,
            images=int(metrics["images"]),
            tags=int(metrics["tags"]),
            tags_scored=int(metrics["tags_scored"]),
            over_frequency=times(mean, frequency),
            over_scratch=times(mean, scratch),
            cards=_cards(metrics),
            bars=_bars(mean, scratch, frequency),
            best=best,
            worst=worst,
            scratch=scratch is not None,
            excluded=[str(name) for name in content["excluded_tags"]],
            dropped=[str(name) for name in content.get("dropped_tags", [])],
            unreadable=[str(name) for name in content["unreadable"]],
        )


def _baseline(content: dict[str, Any], name: str) -> float | None:
    value = (content["baselines"].get(name) or {}).get("mAP")
    return None if value is None else float(value)


def _cards(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    scored, tags = int(metrics["tags_scored"]), int(metrics["tags"])
    precision, recall, f1 = (score(metrics[f"{name}_pooled"]) for name in ("precision", "recall", "f1"))
    return [
        ("mAP", score(metrics["mAP"]), f"mean over the {scored:,} tags that occur in the test split"),
        ("mAP, upstream", score(metrics["mAP_public"]), f"over all {tags:,} tags; one that does not occur counts as 0"),
        ("Precision", score(metrics["precision"]), f"mean over tags; {precision} of all it says"),
        ("Recall", score(metrics["recall"]), f"mean over tags; {recall} of all that is true"),
        ("F1", score(metrics["f1"]), f"mean over tags; {f1} of all together"),
    ]


def _bars(mean: float, scratch: float | None, frequency: float | None) -> list[Bar]:
    entries = [("This run", "pretrained encoder", mean, "s1")]
    if scratch is not None:
        entries.append(("From scratch", _over(mean, scratch), scratch, "s2"))
    if frequency is not None:
        entries.append(("Tag frequency", _over(mean, frequency), frequency, "s0"))
    widest = max(0.01, *(value for _, _, value, _ in entries))
    return [Bar(label, note, score(value), charts.bar(value / widest, hue)) for label, note, value, hue in entries]


def _over(mean: float, base: float) -> str:
    ratio = times(mean, base)
    return f"this run reaches {ratio} times that" if ratio else "nothing to compare with"


def _tags(run: Run, shown: int) -> tuple[list[Tag], list[Tag]]:
    rows = run.table("evaluate", PER_TAG_FILE, TAG_COLUMNS).to_dicts()
    scored = sorted((r for r in rows if r["ap"] is not None), key=lambda r: (-r["ap"], r["name"]))
    best = scored[: min(shown, (len(scored) + 1) // 2)]
    worst = scored[len(best) :][-shown:][::-1]
    return [_tag(r) for r in best], [_tag(r) for r in worst]


def _tag(row: dict[str, Any]) -> Tag:
    return Tag(
        name=row["name"],
        status=row["status"],
        positives=row["positives"],
        ap=score(row["ap"]),
        bar=charts.bar(row["ap"], "s1", row["ap_from_scratch"]),
        precision=score(row["precision"]),
        recall=score(row["recall"]),
        f1=score(row["f1"]),
    )
