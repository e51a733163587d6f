"""Spikes, swings, standing still, NaN, the floor of loss_dis, jumps of the rate: found, and not in a healthy run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.doctor.conftest import ids
from tests.doctor.logs import console, log_txt, row

STEPS, EVERY, EPOCHS = 9303, 50, 5


def healthy(seed=0, floor=False):
    """Rows of five epochs as a healthy run has them: a steep start, then a slow fall under the noise of a batch."""
    rng = np.random.default_rng(seed)
    rows = []
    for epoch in range(EPOCHS):
        for step in range(0, STEPS, EVERY):
            done = (epoch * STEPS + step) / STEPS
            noise = 1 + 0.09 * rng.standard_normal(3)
            rate = min(1e-4, 5e-7 + 1e-4 * step / 3000) if epoch == 0 else 1e-4 * 0.9**epoch
            rows.append((epoch, step, {
                "lr": rate,
                "loss_tag": (420 * math.exp(-40 * done) + 480 - 25 * done) * noise[0],
                "loss_dis": (0.281 if floor else 0.28 - 0.02 * done + 0.02 * math.exp(-9 * done)) * noise[1] ** 0.2,
                "loss_alignment": (40 * math.exp(-40 * done) + 61 - 4 * done) * noise[2],
            }))  # fmt: skip
    return rows


def write(path, rows):
    lines = ["Creating RAM model", "### Load Vision Backbone swin_l", "Start training"]
    path.write_text("\n".join(lines + [row(epoch, step, STEPS, values) for epoch, step, values in rows]) + "\n")
    return path


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_run_has_nothing(look, tmp_path, seed):
    assert ids(look(log=write(tmp_path / "log.txt", healthy(seed)))) == []


def test_spikes(look, tmp_path):
    rows = healthy()
    for place in (100, 300, 555):
        rows[place][2]["loss_tag"] *= 4
    (finding,) = look(log=write(tmp_path / "log.txt", rows)).findings
    assert finding.id == "losses.spikes" and finding.title.startswith("loss_tag")
    assert "3 of 935 rows" in finding.evidence[0]
    places = ("epoch 0, step 5000", "epoch 1, step 5650", "epoch 2, step 9050")
    assert any(place in finding.evidence[1] for place in places)


def test_one_spike_is_not_reported(look, tmp_path):
    rows = healthy()
    rows[100][2]["loss_tag"] *= 4
    assert ids(look(log=write(tmp_path / "log.txt", rows))) == []


def test_swings_of_single_batches(look, tmp_path):
    rows = healthy()
    rng = np.random.default_rng(1)
    for _, _, values in rows:
        values["loss_alignment"] *= 1 + 0.35 * rng.uniform(-1, 1) + 0.1 * rng.standard_normal()
    assert "losses.swings" in ids(look(log=write(tmp_path / "log.txt", rows)))


def test_swings_of_epoch_means(look, tmp_path):
    def means(*tags):
        return log_txt(
            tmp_path / "log.txt", [{"loss_tag": tag, "loss_dis": 0.2 - i / 50} for i, tag in enumerate(tags)]
        )

    assert ids(look(log=means(500, 400, 480, 390, 385))) == ["losses.swings"]
    assert ids(look(log=means(500, 450, 430, 410, 395))) == []


def test_a_stall(look, tmp_path):
    rows = healthy()
    for number, (_, _, values) in enumerate(rows):
        if number > 100:
            values["loss_tag"] = 480 * (1 + 0.05 * math.sin(number))
    (finding,) = look(log=write(tmp_path / "log.txt", rows)).findings
    assert finding.id == "losses.stall" and finding.title == "loss_tag stands still"


def test_the_floor_of_loss_dis(look, tmp_path):
    assert ids(look(log=write(tmp_path / "log.txt", healthy(floor=True)))) == ["distillation.floor"]
    means = [{"loss_tag": 500 - 20 * i, "loss_dis": 0.284 - 0.001 * i} for i in range(5)]
    assert ids(look(log=log_txt(tmp_path / "means.txt", means))) == ["distillation.floor"]


def test_loss_dis_that_falls_through_the_floor_is_healthy(look, tmp_path):
    means = [{"loss_tag": 500 - 20 * i, "loss_dis": 0.29 - 0.015 * i} for i in range(4)]
    assert ids(look(log=log_txt(tmp_path / "means.txt", means))) == []


def test_nan(look, tmp_path):
    rows = healthy()
    for _, _, values in rows[400:]:
        values["loss_tag"] = math.nan
    found = look(log=write(tmp_path / "log.txt", rows)).findings
    assert found[0].id == "losses.not_finite" and "epoch 2" in found[0].evidence[0]
    means = [{"loss_tag": 400.0}, {"loss_tag": math.nan}]
    assert ids(look(log=log_txt(tmp_path / "means.txt", means))) == ["losses.not_finite"]


def test_the_jump_after_a_short_epoch(look, tmp_path):
    rows = []
    for epoch in range(2):
        for step in range(0, 500, 50):
            rows.append(
                (epoch, step, {"lr": 9e-5 if epoch else 5e-7 + 1e-4 * step / 3000, "loss_dis": 0.2 - step / 1e5})
            )
    (finding,) = look(log=write(tmp_path / "log.txt", rows)).findings
    assert finding.id == "rate.jump" and finding.evidence[0].startswith("1.6e-05 at step 450 of 9303 in epoch 0, 9e-05")


def test_a_symptom_follows_from_its_cause(look, tmp_path):
    path = write(tmp_path / "log.txt", healthy(floor=True))
    path.write_text(path.read_text().replace("### Load Vision Backbone swin_l\n", ""))
    from ramflow.doctor.page import as_text

    text = as_text(look(log=path))
    assert "1. The encoder was never pretrained" in text and "2. loss_dis stands at the floor" in text
    assert "follows     from 1" in text


def test_few_rows_say_so(look, tmp_path):
    answer = look(log=console(tmp_path / "log.txt", [{"loss_dis": 0.3}] * 3))
    assert ids(answer) == []
    assert len(answer.untold) >= 2
