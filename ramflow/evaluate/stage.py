"""evaluate: mAP, precision, recall and F1 of a trained model on the test split, beside two baselines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import save_file

from ramflow.data.audited import tag_status, usable_samples
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.metrics import (
    Floats,
    TagScores,
    at_thresholds,
    average_precisions,
    mean_average_precision,
    mean_average_precision_public,
    pooled,
)
from ramflow.model.device import choose_device, make_repeatable
from ramflow.model.saved import SavedModel, load_model
from ramflow.model.scoring import Scores, score
from ramflow.settings import EvaluateSettings
from ramflow.tags import TagTable
from ramflow.verdict import Check, Verdict, check, share_of

EVALUATION_FILE = "evaluation.json"
PER_TAG_FILE = "per_tag.parquet"
SCORES_FILE = "scores.safetensors"


@dataclass(frozen=True)
class Result:
    """Everything measured on the test split; arrays are a tag each, and ``ap`` is NaN for dropped tags."""

    tags: TagTable
    scores: Scores
    ap: Floats
    scratch_ap: Floats | None
    frequency_ap: Floats
    at: TagScores
    thresholds: Floats

    @property
    def used(self) -> npt.NDArray[np.intp]:
        """Indices of the tags that are not dropped."""
        return np.delete(np.arange(len(self.tags)), self.tags.dropped)

    @property
    def scored(self) -> npt.NDArray[np.intp]:
        """Indices of the tags that have positives and are not dropped."""
        return np.flatnonzero(~np.isnan(self.ap))


def run(
    settings: EvaluateSettings, *, data: Path, audit: Path, train: Path, out: Path, scratch: Path | None = None
) -> Verdict:
    """Score the test split and write ``evaluation.json``, ``per_tag.parquet`` and ``scores.safetensors``.

    Raises:
        UserError: the model was trained with another tag list, or no test image is readable.
    """
    make_repeatable()
    dataset = Dataset(data)
    tags = tag_status(dataset, audit)
    samples = usable_samples(dataset, audit, "test")
    trained = load_model(train)
    scores = _score(trained, dataset, samples, settings, "evaluate")
    from_scratch = _score(load_model(scratch), dataset, samples, settings, "evaluate from scratch") if scratch else None
    thresholds = np.array(trained.tags.thresholds)
    frequency = np.array(tags.counts) / len(usable_samples(dataset, audit, "train"))
    used = np.array([status != "dropped" for status in tags.status])
    result = Result(
        tags=tags,
        scores=scores,
        ap=average_precisions(scores.scores, scores.targets & used),
        scratch_ap=average_precisions(from_scratch.scores, from_scratch.targets & used) if from_scratch else None,
        frequency_ap=average_precisions(np.tile(frequency, (len(scores.samples), 1)), scores.targets & used),
        at=at_thresholds(scores.scores, scores.targets, thresholds),
        thresholds=thresholds,
    )
    evaluation = _evaluation(result)
    _write(result, evaluation, frequency, out)
    return Verdict("evaluate", checks=_checks(result, evaluation, settings, len(samples)), metrics=_flat(evaluation))


def _score(
    model: SavedModel, dataset: Dataset, samples: npt.NDArray[np.int64], settings: EvaluateSettings, label: str
) -> Scores:
    if model.tags.digest != dataset.tags.digest:
        raise UserError(
            f"the model was trained with another tag list ({len(model.tags)} tags, {model.tags.digest[:19]}) than the "
            f"dataset's ({len(dataset.tags)} tags, {dataset.tags.digest[:19]}): train again"
        )
    ram = model.model.to(choose_device(settings.device))
    scores = score(ram, model.preprocessing, dataset, samples, settings.batch, label)
    if not scores.samples:
        raise UserError(f"{dataset.directory}: no readable image in the test split: run audit again")
    return scores


def _evaluation(result: Result) -> dict[str, Any]:
    used, scored, at = result.used, result.scored, result.at
    scores = result.scores
    precision, recall, f1 = pooled(scores.scores[:, used], scores.targets[:, used], result.thresholds[used])
    scratch = result.scratch_ap
    return {
        "metrics": {
            "mAP": mean_average_precision(result.ap),
            "mAP_public": mean_average_precision_public(result.ap[used]),
            "precision": float(at.precision[scored].mean()),
            "recall": float(at.recall[scored].mean()),
            "f1": float(at.f1[scored].mean()),
            "precision_pooled": precision,
            "recall_pooled": recall,
            "f1_pooled": f1,
            "images": len(scores.samples),
            "tags": len(used),
            "tags_scored": len(scored),
        },
        "baselines": {
            "tag_frequency": {"mAP": mean_average_precision(result.frequency_ap)},
            "from_scratch": {"mAP": None if scratch is None else mean_average_precision(scratch)},
        },
        "excluded_tags": [result.tags.names[i] for i in used if np.isnan(result.ap[i])],
        "dropped_tags": result.tags.dropped_names,
        "unreadable": scores.unreadable,
    }


def _write(result: Result, evaluation: dict[str, Any], frequency: Floats, out: Path) -> None:
    text = json.dumps(evaluation, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (out / EVALUATION_FILE).write_text(text + "\n", encoding="utf-8")
    scratch = result.scratch_ap
    pl.DataFrame(
        {
            "id": list(range(len(result.tags))),
            "name": result.tags.names,
            "status": result.tags.status,
            "positives": result.scores.targets.sum(axis=0),
            "frequency": frequency,
            "ap": result.ap,
            "ap_from_scratch": np.full(len(result.tags), np.nan) if scratch is None else scratch,
            "threshold": result.thresholds,
            "precision": result.at.precision,
            "recall": result.at.recall,
            "f1": result.at.f1,
        }
    ).with_columns(pl.col("ap", "ap_from_scratch").fill_nan(None)).write_parquet(out / PER_TAG_FILE)
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "scores": result.scores.scores,
        "targets": result.scores.targets.astype(np.uint8),
        "samples": np.array(result.scores.samples, dtype=np.int64),
    }
    save_file(tensors, out / SCORES_FILE)


def _checks(result: Result, evaluation: dict[str, Any], settings: EvaluateSettings, images: int) -> list[Check]:
    unreadable = result.scores.unreadable
    mAP, frequency = evaluation["metrics"]["mAP"], evaluation["baselines"]["tag_frequency"]["mAP"]
    scratch = evaluation["baselines"]["from_scratch"]["mAP"]
    wanted = settings.min_ratio_to_frequency * frequency
    excluded = evaluation["excluded_tags"]
    again = ": they are not scored, run audit again" if unreadable else ""
    checks = [
        check("evaluate.unreadable", "error", len(unreadable), images,
              f"{len(unreadable)} of {images} test images cannot be decoded{again}",
              limit=share_of(settings.max_unreadable_share, images), examples=unreadable),
        check("evaluate.above_frequency", "error", int(mAP < wanted), 1,
              f"mAP {mAP:.4f}, tag-frequency baseline {frequency:.4f}; {settings.min_ratio_to_frequency:g} times "
              f"that is the least wanted" + (": look at the losses and the data" if mAP < wanted else "")),
        check("evaluate.excluded_tags", "info", len(excluded), len(result.used),
              f"{len(excluded)} of {len(result.used)} tags have no test image: left out of mAP, 0 in mAP_public",
              limit=len(result.used), examples=excluded),
    ]  # fmt: skip
    if dropped := evaluation["dropped_tags"]:
        checks.append(check("evaluate.dropped_tags", "info", len(dropped), len(result.tags),
                            f"{len(dropped)} of {len(result.tags)} tags are dropped: left out of every score",
                            limit=len(result.tags), examples=dropped))  # fmt: skip
    if scratch is not None:
        worse = mAP <= scratch
        message = f"mAP {mAP:.4f}, the same model from scratch {scratch:.4f}"
        advice = ": pretrained weights should help, look at verify's probe" if worse else ""
        checks.append(check("evaluate.above_scratch", "warning", int(worse), 1, message + advice))
    return checks


def _flat(evaluation: dict[str, Any]) -> dict[str, Any]:
    baselines = {f"{name}_mAP": value["mAP"] for name, value in evaluation["baselines"].items()}
    return {**evaluation["metrics"], **baselines}
