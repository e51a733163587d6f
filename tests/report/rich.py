"""The logs of a run with all that the engine measures: two skips, a rewind, a plateau, out of memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = ("encoder.patch_embed", *(f"encoder.stage{i}" for i in range(4)), "encoder.norm", "image_projection",
          "reweighting", "head.project", "head.layer0", "head.layer1", "head.logit")  # fmt: skip
STEPS = 4000


def write_logs(out: Path, logs: Path, images: list[str]) -> None:
    """metrics.jsonl and events.jsonl into ``out``, speed.jsonl into ``logs``; ``images``: of a skipped batch."""
    random = np.random.default_rng(11)
    rows = [row for step in range(0, STEPS, 10) for row in _rows(step, random)]
    _write(out / "metrics.jsonl", rows)
    limits = {"loss_tag": 31.2, "loss_alignment": None, "loss_distillation": 0.31, "grad_norm": 88.0}
    values = {"loss_tag": 212.5, "loss_alignment": 4.1, "loss_distillation": 0.2, "grad_norm": 1240.0}
    skip = {"reason": "spike", "values": values, "limits": limits, "samples": images}
    broken = values | {"loss_tag": None, "grad_norm": None}
    events: list[dict[str, Any]] = [
        {"step": 0, "event": "out_of_memory", "detail": {"micro_batch": 26}},
        {"step": 1200, "event": "skip", "detail": skip | {
            "sentence": "loss_tag 212 is above its limit 31.2: the update was left out; look at the images"}},
        {"step": 1201, "event": "skip", "detail": skip | {"reason": "non_finite", "values": broken,
            "samples": images[:2], "sentence": "loss_tag is not finite: the update was left out"}},
        {"step": 2100, "event": "rewind", "detail": {"to": 2000, "sentence":
            "5 steps in a row were left out: back to the checkpoint of step 2000, and on after step 2100"}},
        {"step": 3200, "event": "plateau", "detail": {"event": "plateau", "what": "loss_distillation", "since": 2600,
            "sentence": "loss_distillation has not improved since step 2600: it is at its floor"}},
    ]  # fmt: skip
    _write(out / "events.jsonl", events)
    logs.mkdir(parents=True, exist_ok=True)
    speed = [{"step": step, "epoch": step / 800, "images_per_second": 1480 + float(random.normal(0, 25)),
              "seconds_per_step": 0.28, "data_wait": 0.01 + 0.02 * float(random.random()), "memory_gib": 31.4,
              "micro_batch": 26} for step in range(0, STEPS, 10)]  # fmt: skip
    _write(logs / "speed.jsonl", speed)


def _rows(step: int, random: np.random.Generator) -> list[dict[str, Any]]:
    done = step / STEPS
    noise = random.lognormal(0, 0.07, 16).tolist()
    spike = 9.0 if step == 1200 else 1.0
    raw = {"tag": (9 + 60 * math.exp(-9 * done)) * noise[0] * spike,
           "alignment": (1.1 + 4 * math.exp(-5 * done)) * noise[1],
           "distillation": (0.04 + 0.3 * math.exp(-7 * done)) * noise[2]}  # fmt: skip
    weights, base = (
        {"tag": 1.0, "alignment": 1.0, "distillation": 0.0192},
        {"tag": 48.0, "alignment": 4.4, "distillation": 0.31},
    )
    row: dict[str, Any] = {
        "step": step, "epoch": step / 800, "kind": "train",
        "learning_rate": min(done / 0.1, 0.5 + 0.5 * math.cos(math.pi * done)) * 1e-4,
        "loss": sum(weights[n] * raw[n] for n in raw), **{f"loss_{n}": v for n, v in raw.items()},
        **{f"weighted_{n}": weights[n] * v for n, v in raw.items()},
        **{f"{n}_relative": v / base[n] for n, v in raw.items()},
        "grad_norm": (3 + 60 * math.exp(-6 * done)) * noise[3] * spike, "scale": 2.66 + 0.4 * done, "skipped_images": 0,
        "skipped_steps": 2 if step > 1200 else 0, "accepted": spike == 1.0,
    }  # fmt: skip
    if step % 50 == 0:
        sizes = zip(("tag", "alignment", "distillation"), (20, 6, 0.4), noise[4:7], strict=True)
        row |= {f"grad_norm_{n}": size * math.exp(-3 * done) * x for n, size, x in sizes}
        row |= {
            f"cosine_{pair}": base_ + 0.08 * math.log(x) / 0.07
            for pair, base_, x in zip(
                ("tag_alignment", "tag_distillation", "alignment_distillation"),
                (0.35, 0.1, -0.05),
                noise[7:10],
                strict=True,
            )
        }
        row["cosine_previous"] = 0.15 + 0.02 * math.log(noise[10]) / 0.07
        row["update_ratio"] = {
            g: 1e-3 * 0.8**i * (1 - 0.8 * done) * random.lognormal(0, 0.1) for i, g in enumerate(GROUPS)
        }
    rows = [row]
    if step % 500 == 490:
        mAP = 0.42 * (1 - math.exp(-4 * done))
        rows.append({"step": step + 10, "epoch": step / 800, "kind": "validation", "mAP": mAP, "mAP_public": 0.9 * mAP,
                     "mAP_present": 1.1 * mAP, "mAP_rare": 0.4 * mAP, "loss_tag": 10.0, "images": 500,
                     "ema_mAP": 1.03 * mAP, "ema_mAP_present": 1.1 * mAP})  # fmt: skip
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
