"""train: RAM++ from audited data, embeddings and verified weights, in one process or in many."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ramflow import storage
from ramflow.data.audited import tag_status, usable_samples
from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.data.order import Order
from ramflow.data.vectors import CaptionVectors, TagEmbeddings, read_tag_embeddings
from ramflow.errors import UserError
from ramflow.metrics import calibrate
from ramflow.model.device import make_repeatable
from ramflow.model.execution import Execution
from ramflow.model.preprocessing import Preprocessing, to_pixels
from ramflow.model.ram_plus import RamPlus
from ramflow.model.saved import save_model
from ramflow.model.teacher import Teacher
from ramflow.progress import say
from ramflow.settings import TrainSettings
from ramflow.tags import TagTable
from ramflow.train import ranks
from ramflow.train.checkpoint import Checkpoints
from ramflow.train.detect import Context
from ramflow.train.logs import Logs, NoLogs
from ramflow.train.loop import Trainer
from ramflow.train.profile_steps import profile_steps
from ramflow.train.relative import baselines_of
from ramflow.train.samples import TrainingSamples
from ramflow.train.start import build_model, check_embeddings
from ramflow.train.step import TagTargets
from ramflow.train.summary import start_sentence, summary
from ramflow.verdict import Verdict
from ramflow.weights.attest import Attestation, read_attestation

TEACHER_IMAGES = 256


@dataclass(frozen=True)
class Inputs:
    """What a run is made from, read and found to belong together."""

    dataset: Dataset
    tags: TagTable
    vectors: TagEmbeddings
    captions: CaptionVectors
    attestation: Attestation
    teacher: Teacher
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    model: RamPlus
    started_from: dict[str, Any] | None
    """Where the weights beside the encoder's come from, if not from the seed."""


def run(
    settings: TrainSettings,
    *,
    data: Path,
    audit: Path,
    embed: Path,
    verify: Path,
    clip: Path,
    out: Path,
    start: Path | None = None,
    logs: Path | None = None,
    checkpoints: str = "",
    profile: int = 0,
) -> Verdict:
    """Train and write ``metrics.jsonl``, ``events.jsonl``, ``checkpoints/`` and ``model/``.

    Args:
        settings: of the run.
        data: packed dataset.
        audit: output of the audit stage.
        embed: output of the embed stage.
        verify: output of the verify stage.
        clip: the CLIP whose image feature is the teacher's.
        out: directory to fill; process 0 does.
        start: a trained model whose head and projection are where this run begins.
        logs: where rows that hold times go (``speed.jsonl``, ``tensorboard/``); None: nowhere.
        checkpoints: s3:// address below which checkpoints are kept too.
        profile: steps to take and time, with no other result; 0: train.

    Raises:
        UserError: the inputs do not belong together, or the encoder in memory is not what verify attested.
    """
    make_repeatable()
    device = ranks.join(settings.device)
    try:
        if settings.tf32:
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(settings.seed)
        inputs = ranks.on_every_rank(
            lambda: _read(settings, data, audit, embed, verify, clip, start, device), device
        )
        trainer = _trainer(settings, inputs, out, logs, checkpoints)
        if profile:
            profile_steps(trainer, profile)
            return Verdict("train")
        return _train(settings, trainer, inputs)
    finally:
        ranks.leave()


def _train(settings: TrainSettings, trainer: Trainer, inputs: Inputs) -> Verdict:
    first = ranks.rank() == 0
    if first:
        share, micro_batch = trainer.engine.share, trainer.engine.micro_batch
        say(
            f"train: {len(trainer.order)} images, {trainer.total} steps of {settings.batch} on {trainer.device}: "
            f"{ranks.world()} x {-(-share // micro_batch)} x {micro_batch} (processes, micro-batches, images)"
        )
    best = trainer.run()
    trainer.model.load_state_dict(best, strict=False)
    scores = trainer.validation_scores()
    if not first:
        return Verdict("train")
    thresholds = calibrate(scores.scores, scores.targets)
    _save(settings, trainer, inputs, replace(inputs.tags, thresholds=thresholds.tolist()))
    return summary(trainer, inputs.attestation, inputs.started_from)


def _read(
    settings: TrainSettings,
    data: Path,
    audit: Path,
    embed: Path,
    verify: Path,
    clip: Path,
    start: Path | None,
    device: torch.device,
) -> Inputs:
    dataset = Dataset(data)
    check_cache(dataset, settings)
    tags, vectors = tag_status(dataset, audit), read_tag_embeddings(embed)
    check_embeddings(vectors, dataset.tags)
    attestation = read_attestation(verify)
    teacher = Teacher(clip)
    if teacher.width != vectors.embeddings.shape[-1]:
        raise UserError(
            f"the CLIP of --clip is {teacher.width} wide, the tag embeddings {vectors.embeddings.shape[-1]}: "
            "give train the CLIP that embed used"
        )
    model = build_model(settings, attestation, vectors, verify, device)
    started_from = None
    if start is not None:
        if settings.from_scratch:
            raise UserError(
                "train: a head that was trained goes with its encoder: leave out --start, or train.from_scratch"
            )
        from ramflow.model.start_from import load_rest

        started_from = load_rest(model, start)
        if ranks.rank() == 0:
            say(f"train: {start_sentence(started_from)}")
    residual = torch.bfloat16 if settings.residual == "bfloat16" else torch.float32
    model.execution = Execution(settings.recompute, residual, settings.slice)
    if settings.compile:
        model.encoder.compile()
    return Inputs(
        dataset, tags, vectors, CaptionVectors(embed), attestation, teacher.to(device),
        usable_samples(dataset, audit, "train"), usable_samples(dataset, audit, "validation"), model, started_from,
    )  # fmt: skip


def _trainer(settings: TrainSettings, inputs: Inputs, out: Path, logs: Path | None, checkpoints: str) -> Trainer:
    dataset, encoder, teacher = inputs.dataset, inputs.attestation.encoder, inputs.teacher
    device = inputs.model.embeddings.device
    shards = [shard.range for shard in dataset.shards]
    order = Order(inputs.train, shards, settings.seed, dataset.digest, settings.shuffle_shards)
    tags = _tag_targets(settings, inputs.tags, device)
    first = ranks.rank() == 0
    return Trainer(
        model=inputs.model,
        teacher=teacher,
        preprocessing=Preprocessing(encoder.image_size, tuple(encoder.mean), tuple(encoder.std)),
        samples=TrainingSamples(dataset, inputs.captions, encoder.image_size, teacher.preprocessing.size, settings),
        order=order,
        validation=inputs.validation,
        tags=tags,
        baselines=baselines_of(
            np.array(inputs.tags.counts) / len(order),
            tags.mask.cpu().numpy(),
            settings,
            _mean_distance(teacher, dataset, order.at(0, 0, TEACHER_IMAGES), device),
        ),
        context=Context(
            from_scratch=settings.from_scratch,
            attested=not settings.from_scratch,
            batch=settings.batch,
            images=len(order),
            masked_tags=int((~tags.mask).sum()),
            total_steps=settings.epochs * order.steps(settings.batch),
        ),
        settings=settings,
        out=out,
        logs=Logs(out, logs, order.steps(settings.batch)) if first else NoLogs(),
        checkpoints=_checkpoints(settings, out, checkpoints) if first else None,
    )


def _checkpoints(settings: TrainSettings, out: Path, remote: str) -> Checkpoints:
    """Below a remote address every run, known by its inputs and settings, has a folder of its own."""
    claim = out / storage.CLAIM
    if remote and claim.is_file():
        remote = f"{remote.rstrip('/')}/{storage.sha256_file(claim).removeprefix('sha256:')[:16]}"
    return Checkpoints(out / "checkpoints", settings.keep_checkpoints, remote)


def _tag_targets(settings: TrainSettings, tags: TagTable, device: torch.device) -> TagTargets:
    left_out = {"dropped", "missing"} if settings.missing_tags == "mask" else {"dropped"}
    mask = torch.tensor([status not in left_out for status in tags.status], device=device)
    floor = None
    if settings.missing_tags == "smooth":
        missing = torch.tensor([status == "missing" for status in tags.status], device=device)
        floor = settings.label_smoothing * missing.float()
    return TagTargets(mask, floor)


def check_cache(dataset: Dataset, settings: TrainSettings) -> None:
    """A cache of s3:// shards that holds less than two windows would fetch them over and over, without a word."""
    if dataset.cache is None:
        return
    shards = min(2 * settings.shuffle_shards, len(dataset.shards))
    needed = shards * max(shard.bytes for shard in dataset.shards)
    if needed > dataset.cache.max_bytes:
        raise UserError(
            f"train: two windows of {settings.shuffle_shards} shards take {needed / 2**30:.3g} GiB, "
            f"the cache may hold {dataset.cache.max_bytes / 2**30:.3g}: "
            "set RAMFLOW_CACHE_GB higher, or train.shuffle_shards lower"
        )


def _mean_distance(
    teacher: Teacher, dataset: Dataset, samples: npt.NDArray[np.int64], device: torch.device
) -> float:
    """loss_distillation of predicting the mean teacher feature of some training images, the readable ones (F19).

    Raises:
        UserError: none of them is readable.
    """
    features = []
    for sample in samples.tolist():
        try:
            image = decode_rgb(dataset.image(sample))
        except ImageFault:
            continue
        features.append(teacher(to_pixels(teacher.preprocessing.resize(image))[None].to(device)))
    if not features:
        raise UserError(f"{dataset.directory}: no training image is readable: fetch or pack the dataset again")
    stacked = torch.cat(features)
    return float((stacked - stacked.mean(dim=0)).abs().mean())


def _save(settings: TrainSettings, trainer: Trainer, inputs: Inputs, tags: TagTable) -> None:
    encoder = inputs.attestation.encoder
    config = {"encoder": {"name": encoder.name, "options": encoder.options}, "head": settings.head.model_dump()}
    provenance = {
        "data": trainer.samples.dataset.digest,
        "tags": tags.digest,
        "text_encoder": inputs.vectors.encoder,
        "weights": None if settings.from_scratch else inputs.attestation.source,
        "started_from": inputs.started_from,
        "settings": settings.model_dump(mode="json"),
        "best_step": trainer.position.best_step,
    }
    shutil.rmtree(trainer.out / "model", ignore_errors=True)
    weights = {name: tensor.detach().cpu() for name, tensor in trainer.model.state_dict().items()}
    save_model(trainer.out, weights, config, trainer.preprocessing, tags, inputs.vectors, provenance)
