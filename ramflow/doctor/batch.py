"""Diagnosis of the batch: how many images a GPU saw at a time, and so how the three losses were mixed (F15)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer, Finding, Untold
from ramflow.doctor.log_file import TrainingLog
from ramflow.doctor.magnitudes import implied_batch
from ramflow.doctor.recipe import FINE_TUNING_BATCH, GPUS, PUBLIC_BATCH, PUBLIC_TAGS, TAGS_AN_IMAGE
from ramflow.tag_lists.mapping import plural

UNLIKE = 1.3
"""Times the recipe's batch, either way, from which on the mix of the losses is another."""


@dataclass(frozen=True)
class Estimate:
    """A batch per GPU between ``low`` and ``high``, and how it is known."""

    low: int
    high: int
    evidence: str
    sure: bool = True


def diagnose_batch(case: Case) -> Answer:
    """Find the batch per GPU from the configuration, the steps of an epoch, and the size of the first losses."""
    answer = Answer()
    if case.log and case.log.writer == "ramflow":
        return answer  # its losses are per image, whatever the batch
    estimates = [e for e in (_of_config(case), _of_steps(case), _of_losses(case)) if e]
    recipe = FINE_TUNING_BATCH if case.fine_tuning else PUBLIC_BATCH
    low, high = recipe / UNLIKE, recipe * UNLIKE
    told = next((e for e in estimates if e.high < low or e.low > high or (e.low >= low and e.high <= high)), None)
    if told is None and (case.log or case.checkpoint):
        best = estimates[0].evidence + "; that does not decide it" if estimates else "nothing given says it"
        answer.untold.append(
            Untold(f"the batch per GPU: {best} (means over an epoch are of a model that has learnt, and do not imply "
                   "it)",
                   "--log with the console output from its first row on, or --checkpoint of the public code")
        )  # fmt: skip
    elif told and (told.high < low or told.low > high):
        answer.findings.append(_unlike(told, estimates, recipe))
    if not answer.findings:
        answer.seen += [("batch", estimate.evidence) for estimate in estimates]
    answer.seen += _global_batch(case, told)
    return answer


def _of_config(case: Case) -> Estimate | None:
    batch = case.checkpoint.config.get("batch_size") if case.checkpoint else None
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        return None
    return Estimate(batch, batch, f"the checkpoint's own configuration says batch_size {batch} a GPU")


def _of_steps(case: Case) -> Estimate | None:
    """Images and processes are printed at the start; the sampler gives each its share, and drops the last batch."""
    log = case.log
    if log is None or not log.samples or not log.world or not (steps := _steps_an_epoch(log)):
        return None
    share = math.ceil(log.samples / log.world)
    low, high = sorted((share // (steps + 1) + 1, share // steps))
    return Estimate(
        low, high, f"the log says {log.samples:,} images on {plural(log.world, 'GPU')} in {steps:,} steps an epoch: "
        f"batch {_range(low, high)} a GPU"
    )  # fmt: skip


def _of_losses(case: Case) -> Estimate | None:
    if case.log is None or not case.log.last.rows or (case.checkpoint and case.checkpoint.family != "ram++"):
        return None
    first = case.log.last.rows[0]
    tag, alignment = first.values.get("loss_tag"), first.values.get("loss_alignment")
    fresh = first.epoch == 0 and first.step == 0 and not case.log.resumed and not case.fine_tuning
    if not fresh or not tag or not alignment or not math.isfinite(tag + alignment):
        return None
    tags = case.tag_count or PUBLIC_TAGS
    positives = case.annotations.tags_an_image if case.annotations else TAGS_AN_IMAGE
    implied = implied_batch(tag, alignment, tags, positives)
    if implied is None:
        return None
    return Estimate(
        *implied, f"the first losses, loss_tag {tag:.4g} and loss_alignment {alignment:.4g}, are those of a fresh "
                  "model at "
        f"batch {_range(*implied)} ({tags} tags, {positives:.1f} an image)", sure=False
    )  # fmt: skip


def _steps_an_epoch(log: TrainingLog) -> int:
    return log.last.rows[0].steps if log.last.rows else 0


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _unlike(told: Estimate, estimates: list[Estimate], recipe: int) -> Finding:
    middle = (told.low + told.high) / 2
    a, of_recipe = (math.log(2) + (n - 1) * 0.02448 for n in (middle, recipe))
    return Finding(
        "batch.unlike", "cause", "certain" if told.sure else "likely",
        f"Batch {_range(told.low, told.high)} a GPU, where the recipe has {recipe}, with the losses still added 1 : "
        "1 : 1",
        [estimate.evidence for estimate in estimates]
        + [f"a fresh model's loss_alignment an image is {a:.2f} instead of {of_recipe:.2f}, and loss_dis, a mean, "
           f"weighs {recipe / middle:.2g} times as much beside the two sums"],
        "loss_tag and loss_alignment are sums over the batch and loss_dis is a mean: another batch is another mix "
        "of the three, fewer wrong captions to tell an image's own from, and noisier steps at the same rate. "
        "Accumulating gradients does not bring it back: captions of other micro-batches are not seen.",
        f"Train at {recipe} a GPU (bfloat16 and batched re-weighting make room), or with losses normalised per "
        "image; ramflow's train.batch and its loss weights do not depend on the number of GPUs.",
        ("losses.swings", "losses.spikes"),
    )  # fmt: skip


def _global_batch(case: Case, told: Estimate | None) -> list[tuple[str, str]]:
    """What images over steps says of the batch of all GPUs together."""
    steps = _steps_an_epoch(case.log) if case.log else 0
    if not steps and case.checkpoint and case.checkpoint.updates and case.checkpoint.epoch is not None:
        steps = case.checkpoint.updates // (case.checkpoint.epoch + 1)
    images = (case.log.samples if case.log else None) or (case.annotations.images if case.annotations else None)
    if not steps or not images:
        return []
    whole = images / steps
    said = case.log and case.log.world
    gpus = f", that is {whole / told.high:.1f} GPUs of {_range(told.low, told.high)}" if told and not said else ""
    return [("batch", f"{images:,} images in {steps:,} steps: about {whole:.0f} a step over all GPUs{gpus} "
                      f"(the recipe: {PUBLIC_BATCH * GPUS})")]  # fmt: skip
