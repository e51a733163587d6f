"""train: RAM++ from audited data, embeddings and verified weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ramflow.data.audited import tag_status, usable_samples
from ramflow.data.dataset import Dataset
from ramflow.data.images import ImageFault, decode_rgb
from ramflow.data.order import Order
from ramflow.data.vectors import CaptionVectors, TagEmbeddings, read_tag_embeddings
from ramflow.errors import UserError
from ramflow.metrics import calibrate
from ramflow.model.device import choose_device, make_repeatable
from ramflow.model.preprocessing import Preprocessing, to_pixels
from ramflow.model.ram_plus import RamPlus
from ramflow.model.saved import save_model
from ramflow.model.teacher import Teacher
from ramflow.progress import say
from ramflow.settings import TrainSettings
from ramflow.tags import TagTable
from ramflow.train.loop import EVENTS_FILE, Trainer
from ramflow.train.ranks import on_every_rank
from ramflow.train.samples import TrainingSamples
from ramflow.train.start import build_model, check_embeddings
from ramflow.verdict import Verdict, check
from ramflow.weights.attest import Attestation, read_attestation

TEACHER_IMAGES = 256


def run(
    settings: TrainSettings, *, data: Path, audit: Path, embed: Path, verify: Path, clip: Path, out: Path
) -> Verdict:
    """Train and write ``metrics.jsonl``, ``events.jsonl``, ``checkpoints/`` and ``model/``.

    Raises:
        UserError: the inputs do not belong together, or the encoder in memory is not what verify attested.
    """
    make_repeatable()
    torch.manual_seed(settings.seed)
    dataset = Dataset(data)
    tags = tag_status(dataset, audit)
    vectors = read_tag_embeddings(embed)
    check_embeddings(vectors, dataset.tags)
    attestation = read_attestation(verify)
    teacher = Teacher(clip)
    if teacher.width != vectors.embeddings.shape[-1]:
        raise UserError(
            f"the CLIP of --clip is {teacher.width} wide, the tag embeddings {vectors.embeddings.shape[-1]}: "
            "give train the CLIP that embed used"
        )
    device = choose_device(settings.device)
    model = on_every_rank(lambda: build_model(settings, attestation, vectors, verify, device), device)
    trainer = _trainer(settings, dataset, audit, embed, tags, attestation, teacher.to(device), model, out)
    say(f"train: {len(trainer.order)} images, {trainer.total} steps of {settings.batch} on {device}")
    best = trainer.run()
    model.load_state_dict(best)
    _save(settings, trainer, tags, vectors, attestation, best)
    return _verdict(trainer, attestation)


def _trainer(
    settings: TrainSettings,
    dataset: Dataset,
    audit: Path,
    embed: Path,
    tags: TagTable,
    attestation: Attestation,
    teacher: Teacher,
    model: RamPlus,
    out: Path,
) -> Trainer:
    encoder = attestation.encoder
    check_cache(dataset, settings)
    usable = usable_samples(dataset, audit, "train")
    shards = [shard.range for shard in dataset.shards]
    order = Order(usable, shards, settings.seed, dataset.digest, settings.shuffle_shards)
    left_out = {"dropped"} if settings.missing_tags == "negative" else {"dropped", "missing"}
    counted = [status not in left_out for status in tags.status]
    return Trainer(
        model=model,
        teacher=teacher,
        preprocessing=Preprocessing(encoder.image_size, tuple(encoder.mean), tuple(encoder.std)),
        samples=TrainingSamples(
            dataset, CaptionVectors(embed), encoder.image_size, teacher.preprocessing.size, settings
        ),
        order=order,
        validation=usable_samples(dataset, audit, "validation"),
        tag_mask=torch.tensor(counted, device=model.embeddings.device),
        mean_distance=_mean_distance(teacher, dataset, order.at(0, 0, TEACHER_IMAGES), model.embeddings.device),
        settings=settings,
        out=out,
    )


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


def _save(
    settings: TrainSettings,
    trainer: Trainer,
    tags: TagTable,
    vectors: TagEmbeddings,
    attestation: Attestation,
    best: dict[str, torch.Tensor],
) -> None:
    scores = trainer.validation_scores()
    thresholds = calibrate(scores.scores, scores.targets)
    encoder = attestation.encoder
    config = {"encoder": {"name": encoder.name, "options": encoder.options}, "head": settings.head.model_dump()}
    provenance = {
        "data": trainer.samples.dataset.digest,
        "tags": tags.digest,
        "text_encoder": vectors.encoder,
        "weights": None if settings.from_scratch else attestation.source,
        "settings": settings.model_dump(mode="json"),
        "best_step": trainer.position.best_step,
    }
    shutil.rmtree(trainer.out / "model", ignore_errors=True)
    save_model(
        trainer.out,
        best,
        config,
        trainer.preprocessing,
        replace(tags, thresholds=thresholds.tolist()),
        vectors,
        provenance,
    )


def _verdict(trainer: Trainer, attestation: Attestation) -> Verdict:
    events = (trainer.out / EVENTS_FILE).read_text(encoding="utf-8").splitlines()
    not_finite, unreadable = (
        [event for event in events if json.loads(event)["event"] == name] for name in ("non_finite", "skipped_image")
    )
    settings, position = trainer.settings, trainer.position
    tensors = len(attestation.tensors)
    fresh = tensors if settings.from_scratch else 0
    seen = trainer.order.seen(trainer.total, settings.batch)
    scratch = settings.from_scratch
    return Verdict(
        "train",
        checks=[
            check("train.non_finite", "warning", len(not_finite), trainer.total,
                  f"{len(not_finite)} of {trainer.total} steps were left out for a loss or gradient that is not finite"
                  + (", listed in events.jsonl: lower the rate" if not_finite else ""), examples=not_finite),
            check("train.skipped_images", "warning", len(unreadable), seen,
                  f"{len(unreadable)} of {seen} images could not be decoded and were left out"
                  + (", listed in events.jsonl: run audit again" if unreadable else ""), examples=unreadable),
            check("train.from_scratch", "warning", int(scratch), 1,
                  f"the encoder started from {'random weights on purpose' if scratch else 'verified weights'}"),
            check("train.attested", "info", fresh, tensors, f"{tensors - fresh} of {tensors} encoder tensors were, "
                  "digested from memory before step 1, those that verify attested", limit=fresh),
        ],
        metrics={"steps": trainer.total, "images": len(trainer.order), "best_step": position.best_step,
                 "validation_mAP": position.best_mAP, "predict_the_mean": trainer.mean_distance,
                 "skipped_images": position.skipped_images},
    )  # fmt: skip
