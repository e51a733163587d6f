"""A finished run of tiny drawn pictures: a packed dataset, and the artifacts of every stage in their real formats."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from ramflow import storage
from ramflow.data.dataset import DATASET_FILE, Dataset
from ramflow.data.pack import pack
from ramflow.settings import Settings
from ramflow.stage import open_inputs
from ramflow.stages import REPORT_INPUTS
from ramflow.verdict import Check, Verdict, check, read_verdict

COLOURS = {"red": "#c8372d", "green": "#3b8f4a", "blue": "#2f62b5", "yellow": "#e3b62f"}
SHAPES = ("circle", "square", "triangle")
TAGS = [*COLOURS, "hexagon", *SHAPES, "striped", "violet"]  # no picture is a hexagon or violet
PICTURES = {"train": 60, "validation": 15, "test": 40}

Run = dict[str, Path]


def draw_pictures(root: Path) -> list[str]:
    """Pictures, annotations and tag list below ``root``; returns pack's ``SPLIT=FILE`` arguments."""
    (root / "images" / "drawn").mkdir(parents=True)
    (root / "tags.txt").write_text("\n".join(TAGS))
    random = np.random.default_rng(7)
    files = []
    for split, count in PICTURES.items():
        records = [_draw(root / "images", f"drawn/{split}{i:03d}.png", random) for i in range(count)]
        file = root / f"{split}.json"
        file.write_text(json.dumps(records))
        files.append(f"{split}={file}")
    return files


def _draw(root: Path, path: str, random: np.random.Generator) -> dict[str, Any]:
    colour, shape = random.choice(list(COLOURS)), random.choice(SHAPES)
    striped = random.random() < 0.15
    image = Image.new("RGB", (72, 56), "white")
    pen = ImageDraw.Draw(image)
    x, y = random.integers(8, 34, 2).tolist()
    box = (x, y - 6, x + 28, y + 22)
    corners = {"circle": None, "square": 4, "triangle": 3}[shape]
    if corners is None:
        pen.ellipse(box, fill=COLOURS[colour])
    else:
        pen.regular_polygon((x + 14, y + 8, 16), corners, fill=COLOURS[colour])
    for line in range(0, 72, 6) if striped else ():
        pen.line((line, 0, line, 56), fill="white", width=2)
    image.save(root / path)
    words = [colour, shape] + ["striped"] * striped
    return {
        "image_path": path,
        "caption": [f"a {' '.join(words[:1] + words[2:] + words[1:2])}"],
        "union_label_id": sorted(map(TAGS.index, words)),
    }


def seal(
    stage: str, directory: Path, inputs: Run, checks: list[Check], metrics: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write the verdict as ``ramflow.stage.execute`` does: digests of what went in and of what came out."""
    digests = {n: storage.sha256_file(p / (DATASET_FILE if n == "data" else "verdict.json")) for n, p in inputs.items()}
    Verdict(stage, checks, metrics, settings, digests, storage.sha256_tree(directory)).write(directory)


def reseal(directory: Path, **changes: Any) -> None:
    """Write a verdict again after its artifacts, or ``changes`` of its fields, have changed."""
    verdict = read_verdict(directory)
    (directory / "verdict.json").unlink()
    verdict.outputs = storage.sha256_tree(directory)
    for name, value in changes.items():
        setattr(verdict, name, value)
    verdict.write(directory)


def write_audit(out: Path, data: Path, settings: Settings) -> None:
    dataset = Dataset(data)
    train = dataset.scan().filter(pl.col("split") == "train").collect()
    aside = train.head(2)
    counts = [0] * len(dataset.tags)
    for tags in train[2:]["union_tags"]:
        for tag in tags:
            counts[tag] += 1
    table = dataset.tags.with_counts(counts, settings.audit.rare_below)
    table.write(out / "tag_status.csv")
    quarantine = aside.select(pl.col("sample").cast(pl.Int64), "key", "split", "image_path").with_columns(
        check=pl.lit("images.truncated")
    )
    quarantine.write_parquet(out / "quarantine.parquet")
    findings = quarantine.select(
        "check", pl.lit("error").alias("severity"), "sample", "key", "image_path", pl.lit("cut off").alias("detail")
    )
    findings.write_parquet(out / "findings.parquet")
    total, missing = len(dataset.manifest), table.missing
    checks = [
        check(
            "images.truncated",
            "error",
            2,
            total,
            "2 images are cut off; they are in quarantine: fetch them again if you can",
            limit=int(0.02 * total),
            examples=aside["image_path"].to_list(),
        ),
        check(
            "text.empty_caption", "warning", 3, total, "3 captions are empty; they are left out of the alignment loss"
        ),
        check(
            "tags.missing",
            "warning",
            len(missing),
            len(table),
            f"{len(missing)} tags have no image in the train split; they keep their ids and have no loss",
            examples=missing,
        ),
        check("tags.outside", "error", 0, total, "every tag id is in the tag list"),
        check("set.across_splits", "info", 4, total, "4 test images are, byte for byte, in the train split too"),
    ]
    metrics = {"images": total, "quarantined": 2, "tags": len(table), "tags_present": table.status.count("present")}
    seal("audit", out, {"data": data}, checks, metrics, settings.audit.model_dump())


def write_embed(out: Path, run: Run, settings: Settings) -> None:
    dataset = Dataset(run["data"])
    tags, descriptions, width = len(dataset.tags), 5, 16
    encoder = {"type": "clip", "weights": "sha256:" + "77" * 32, "width": width}
    vectors = np.random.default_rng(1).normal(size=(tags, descriptions, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    save_file(
        {"embeddings": vectors, "mask": np.ones((tags, descriptions), bool)},
        out / "tags.safetensors",
        {"ramflow": json.dumps({"encoder": encoder, "tag_digest": dataset.tags.digest})},
    )
    captions = [len(c) for c in dataset.manifest["captions"]]
    save_file(
        {"vectors": np.zeros((sum(captions), width), np.float16), "offsets": np.cumsum([0, *captions])},
        out / "captions.safetensors",
    )
    checks = [
        check("embed.probe", "error", 0, 64, "64 stored rows agree with a fresh encoding (least cosine 0.99998)"),
        check("embed.constant_rows", "error", 0, tags * descriptions, "no row is zero or equal to another tag's"),
    ]
    seal(
        "embed",
        out,
        run,
        checks,
        {"descriptions": tags * descriptions, "probe_min_cosine": 0.99998},
        settings.embed.model_dump(),
    )


def write_verify(out: Path, run: Run, settings: Settings) -> None:
    save_file({"patch_embed.proj.weight": np.zeros((4, 3, 4, 4), np.float32)}, out / "encoder.safetensors")
    attestation = {
        "source": {
            "file": "swin.safetensors",
            "bytes": 4_812_904,
            "sha256": "sha256:" + "5e" * 32,
            "format": "timm safetensors",
            "known": {"name": "swin_tiny.pth", "origin": "a public place", "remark": "", "proved": True},
        },
        "encoder": {
            "name": "swin_tiny_patch4_window7_224",
            "options": {},
            "image_size": 224,
            "width": 768,
            "mean": [0.485],
            "std": [0.229],
        },
        "ledger": {
            "loaded": 173,
            "converted": 0,
            "expected_missing": 12,
            "unexpected": 0,
            "other": {"text_decoder": 7},
            "interpolated": ["12 position tables interpolated from window 12 to 7"],
        },
        "tensors": {"patch_embed.proj.weight": {"shape": [4, 3, 4, 4], "sha256": "sha256:" + "11" * 32}},
        "probe": {
            "images": 64,
            "agreement": 0.4211,
            "agreement_fresh": 0.2087,
            "ratio": 2.018,
            "distance_to_fresh": 1.9,
        },
    }
    (out / "attestation.json").write_text(json.dumps(attestation))
    checks = [
        check("weights.unexpected", "error", 0, 185, "every tensor of the file has its place"),
        check(
            "weights.probe",
            "error",
            0,
            1,
            "related images agree 2.02 times as much as under random weights (1.2 is asked)",
        ),
    ]
    seal("verify", out, run, checks, {"tensors": 173, "probe_ratio": 2.018}, settings.verify.model_dump())


def train_log(steps: int, best: float, seed: int) -> list[dict[str, Any]]:
    """Curves as a run leaves them: falling, noisy, and with a validation now and then."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        done = step / steps
        noise = random.lognormal(0, 0.08, 8)
        tag, alignment, distillation = (
            9 + 95 * math.exp(-9 * done),
            2.1 + 4 * math.exp(-5 * done),
            0.045 + 0.2 * math.exp(-7 * done),
        )
        loss = {
            "loss_tag": tag * noise[0],
            "loss_alignment": alignment * noise[1],
            "loss_distillation": distillation * noise[2],
        }
        if step % 5 == 0:
            rate = min(step / (0.1 * steps), 0.5 + 0.5 * math.cos(math.pi * done)) * 5e-4
            rows.append(
                {
                    "kind": "train",
                    "step": step,
                    "epoch": int(8 * done),
                    "learning_rate": rate,
                    **loss,
                    "loss": loss["loss_tag"] + 10 * loss["loss_alignment"] + 100 * loss["loss_distillation"],
                    "distillation_relative": (0.42 + 13 * math.exp(-20 * done)) * noise[3],
                    "scale": 14.3 + 2 * done,
                    "grad_norm": 3 + 60 * math.exp(-6 * done) * noise[4],
                    "grad_norm_tag": 2 + 30 * math.exp(-6 * done) * noise[5],
                    "grad_norm_alignment": 0.8 + 8 * math.exp(-6 * done) * noise[6],
                    "grad_norm_distillation": 0.3 * noise[7],
                }
            )
        if step % (steps // 8) == 0:
            mean = best * (1 - math.exp(-5 * done)) + random.normal(0, 0.004)
            rows.append(
                {
                    "kind": "validation",
                    "step": step,
                    "epoch": int(8 * done),
                    "mAP": mean,
                    "mAP_public": 0.8 * mean,
                    "loss_tag": 9.0,
                    "images": 15,
                }
            )
    return rows


def write_train(out: Path, run: Run, settings: Settings, *, best: float, seed: int, scratch: bool = False) -> None:
    text = "".join(json.dumps(row) + "\n" for row in train_log(800, best, seed))
    (out / "metrics.jsonl").write_text(text)
    events = [] if scratch else [{"step": 212, "event": "loss_spike", "detail": "loss 4.1 times its running mean"}]
    (out / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (out / "model").mkdir()
    checks = [
        check("train.attested", "error", 0, 173, "the encoder in memory is, bit for bit, the one that verify attested"),
        check("train.finite", "error", 0, 800, "every step was finite"),
        check("train.from_scratch", "warning", int(scratch), 1, "the encoder started from random weights, as asked"),
    ]
    chosen = settings.train.model_dump() | {"from_scratch": scratch}
    seal("train", out, run, checks, {"steps": 800, "mAP": best, "parameters": 31_204_113}, chosen)


def write_evaluate(out: Path, run: Run, settings: Settings) -> None:
    dataset = Dataset(run["data"])
    test, names = dataset.scan().filter(pl.col("split") == "test").collect(), dataset.tags.names
    random = np.random.default_rng(3)
    targets = np.zeros((len(test), len(names)), np.uint8)
    for i, tags in enumerate(test["union_tags"]):
        targets[i, tags.to_list()] = 1
    ease = random.uniform(0.4, 3.4, len(names))
    scores = 1 / (1 + np.exp(2.2 - ease * targets - random.normal(0, 1, targets.shape)))
    save_file(
        {
            "scores": scores.astype(np.float32),
            "targets": targets,
            "samples": test["sample"].to_numpy().astype(np.int64),
        },
        out / "scores.safetensors",
    )
    rows = [_tag_row(i, name, scores[:, i], targets[:, i]) for i, name in enumerate(names)]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(out / "per_tag.parquet")
    scored = [row for row in rows if row["ap"] is not None]
    mean = {
        key: float(np.mean([row[key] for row in scored]))
        for key in ("ap", "ap_from_scratch", "frequency", "precision", "recall", "f1")
    }
    metrics = {
        "mAP": mean["ap"],
        "mAP_public": mean["ap"] * len(scored) / len(rows),
        "precision_pooled": 0.5,
        "recall_pooled": 0.4,
        "f1_pooled": 4 / 9,
        "precision": mean["precision"],
        "recall": mean["recall"],
        "f1": mean["f1"],
        "images": len(test),
        "tags": len(rows),
        "tags_scored": len(scored),
    }
    content = {
        "metrics": metrics,
        "excluded_tags": [row["name"] for row in rows if row["ap"] is None],
        "unreadable": [],
        "baselines": {"tag_frequency": {"mAP": mean["frequency"]}, "from_scratch": {"mAP": mean["ap_from_scratch"]}},
    }
    (out / "evaluation.json").write_text(json.dumps(content))
    checks = [
        check("evaluate.unreadable", "error", 0, len(test), "every test image was read"),
        check("evaluate.above_frequency", "error", 0, 1, "mAP is above the tag-frequency baseline's"),
    ]
    used = {name: run[name] for name in ("data", "audit", "train", "scratch")}
    seal("evaluate", out, used, checks, metrics, settings.evaluate.model_dump())


def _tag_row(i: int, name: str, scores: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    positives, threshold = int(targets.sum()), 0.4
    said = scores >= threshold
    right = int((said & (targets > 0)).sum())
    precision, recall = right / max(int(said.sum()), 1), right / max(positives, 1)
    ranked = targets[np.argsort(-scores, kind="stable")]
    ap = float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked > 0].mean()) if positives else None
    known = {"precision": precision, "recall": recall, "f1": 2 * right / max(int(said.sum()) + positives, 1)}
    return {
        "id": i,
        "name": name,
        "status": "present" if positives else "missing",
        "positives": positives,
        "frequency": positives / len(targets),
        "ap": ap,
        "ap_from_scratch": ap and ap * 0.62,
        "threshold": threshold,
        **(known if positives else dict.fromkeys(known)),
    }


def make_run(root: Path, annotations: list[str], images: Path, tags: Path, settings: Settings) -> Run:
    """All stages' artifacts below ``root``; returns the inputs of the page."""
    run: Run = {"data": root / "data"}
    pack(annotations, images, tags, run["data"])
    writers: dict[str, Callable[[Path], None]] = {
        "audit": lambda out: write_audit(out, run["data"], settings),
        "embed": lambda out: write_embed(out, dict(run), settings),
        "verify": lambda out: write_verify(out, {"data": run["data"], "embed": run["embed"]}, settings),
        "train": lambda out: write_train(out, dict(run), settings, best=0.41, seed=4),
        "scratch": lambda out: write_train(
            out, {k: v for k, v in run.items() if k != "train"}, settings, best=0.25, seed=5, scratch=True
        ),
        "evaluate": lambda out: write_evaluate(out, run, settings),
    }
    for name, write in writers.items():
        (root / name).mkdir()
        write(root / name)
        run[name] = root / name
    open_inputs("report", REPORT_INPUTS, {name: str(path) for name, path in run.items()})
    return run


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that passed; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("run")
    return make_run(root, draw_pictures(root), root / "images", root / "tags.txt", Settings())
