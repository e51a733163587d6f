"""The silent failures of a whole run, each planted as the public code has it, and its clean control.

Numbers are those of the list of ways a RAM++ run goes wrong without saying so.
"""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from ramflow import storage
from ramflow.cli import main
from ramflow.data.dataset import Dataset
from ramflow.data.images import decode_rgb
from ramflow.model.preprocessing import to_pixels
from ramflow.model.reweighting import INITIAL_SCALE
from ramflow.model.teacher import Teacher
from ramflow.settings import AugmentSettings, GuardSettings, HeadSettings, read_settings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.train import checkpoint_files, loop, stage
from ramflow.train.checkpoint import Checkpoints
from ramflow.train.loop import Trainer
from ramflow.verdict import Verdict, read_verdict
from tests.train import artifacts, processes, saving

STAGE = {own.name: own for own in STAGES}
RECIPES = Path(__file__).parents[2] / "recipes"


def train(inputs, out: Path, **changes) -> Verdict:
    """A run of the settings of ``artifacts.settings`` and ``changes``."""
    return execute(STAGE["train"], artifacts.settings(**changes), inputs, str(out))


def lines(out: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def rows(out: Path, kind: str = "train") -> list[dict]:
    return [row for row in lines(out, "metrics.jsonl") if row["kind"] == kind]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def teacher_features(inputs) -> torch.Tensor:
    """Of the 12 training images, whole."""
    teacher, dataset = Teacher(Path(inputs["clip"])), Dataset(Path(inputs["data"]))
    images = [teacher.preprocessing.resize(decode_rgb(dataset.image(sample))) for sample in range(12)]
    return teacher(torch.stack([to_pixels(image) for image in images]))


# F18, F19, F25, F26: what a run says of itself.


def test_f18_the_page_shows_the_smallest_crop(inputs, tmp_path):
    train(inputs, tmp_path / "train", epochs=1, augment=AugmentSettings(min_scale=0.37))
    given = [word for name in ("data", "audit") for word in (f"--{name}", inputs[name])]
    page = tmp_path / "page.html"
    assert main(["report", *given, "--train", str(tmp_path / "train"), "--out", str(page)]) == 0
    assert "Smallest crop" in page.read_text() and "37 %" in page.read_text()


def test_f19_every_row_relates_the_distillation_to_predicting_the_mean(finished, inputs):
    features = teacher_features(inputs)
    floor = (features - features.mean(dim=0)).abs().mean().item()
    assert read_verdict(finished).metrics["predict_the_mean"] == pytest.approx(floor, rel=1e-5)
    for row in rows(finished):
        assert row["distillation_relative"] == pytest.approx(row["loss_distillation"] / floor, rel=1e-5)


def test_f19_a_student_that_says_the_mean_of_all_images_reads_one(inputs, tmp_path, monkeypatch):
    mean, build = teacher_features(inputs).mean(dim=0), stage.build_model

    def blind(*arguments):
        model = build(*arguments)
        with torch.no_grad():
            model.image_projection.weight.zero_()
            model.image_projection.bias.copy_(mean)
        return model

    monkeypatch.setattr(stage, "build_model", blind)
    still = {"learning_rate": 1e-12, "min_learning_rate": 0.0, "warmup_learning_rate": 0.0, "weight_decay": 0.0}
    whole = AugmentSettings(min_scale=1.0, flip=False, operations=0)
    train(inputs, tmp_path / "train", epochs=1, augment=whole, **still)
    read = [row["distillation_relative"] for row in rows(tmp_path / "train")]
    assert np.mean(read) == pytest.approx(1.0, abs=0.15)


def test_f25_f26_groups_and_scale_are_in_the_log(inputs, tmp_path, capsys):
    train(inputs, tmp_path / "train", epochs=1, weight_decay=0.07)
    said = capsys.readouterr().err
    assert "tensors: weight decay 0.07, 1 of the learning rate" in said and "tensors: weight decay 0, 1 of" in said
    scales = [row["scale"] for row in rows(tmp_path / "train")]
    assert scales[0] == pytest.approx(INITIAL_SCALE) and len(set(scales)) == 3


# F20: what is not finite, in a whole run.


@pytest.fixture
def bad_step(monkeypatch):
    """``bad_step(n)``: the teacher's features of step ``n`` are not a number."""
    step = Trainer._step
    forward = Teacher.forward
    now = [-1]

    def noted(self, batch):
        now[0] = self.position.step
        step(self, batch)

    def plant(number: int) -> None:
        def spoilt(self, pixels):
            return forward(self, pixels) * (math.nan if now[0] == number else 1.0)

        monkeypatch.setattr(Trainer, "_step", noted)
        monkeypatch.setattr(Teacher, "forward", spoilt)

    return plant


def finite(out: Path) -> bool:
    files = [*out.rglob("*.safetensors")]
    assert files
    return all(t.isfinite().all() for path in files for t in load_file(path).values() if t.is_floating_point())


def test_f20_a_step_that_is_not_finite_is_left_out_and_its_images_are_named(inputs, tmp_path, bad_step):
    bad_step(2)
    verdict = train(inputs, tmp_path / "train")
    (event,) = lines(tmp_path / "train", "events.jsonl")
    assert (event["event"], event["step"], event["detail"]["reason"]) == ("skip", 2, "non_finite")
    assert "loss_distillation is nan" in event["detail"]["sentence"] and len(event["detail"]["samples"]) == 4
    assert [row["accepted"] for row in rows(tmp_path / "train")] == [True, True, False, True, True, True]
    assert [c.count for c in verdict.checks if c.id == "train.non_finite"] == [1]
    assert finite(tmp_path / "train")


def test_f20_weights_that_are_not_finite_are_never_kept(inputs, tmp_path, monkeypatch):
    """As a fault beside the optimiser would leave them; the run goes back to what it kept before."""
    step = Trainer._step

    def poisoned(self, batch):
        step(self, batch)
        if self.position.step == 3 and not self.position.rewinds:
            self.model.head.logit.weight.data[0, 0] = math.inf

    monkeypatch.setattr(Trainer, "_step", poisoned)
    settings = {"epochs": 4, "checkpoint_every": 1, "guard": GuardSettings(patience=1)}
    train(inputs, tmp_path / "train", **settings)
    found = lines(tmp_path / "train", "events.jsonl")
    assert "not kept: the weights are not finite" in found[0]["detail"] and found[0]["step"] == 4
    back = [event["detail"]["to"] for event in found if event["event"] == "rewind"]
    assert back and set(back) == {3}
    assert finite(tmp_path / "train") and rows(tmp_path / "train")[-1]["accepted"]


def test_f20_a_clean_run_leaves_nothing_out(finished):
    assert lines(finished, "events.jsonl") == [] and finite(finished)
    assert all(row["accepted"] for row in rows(finished))


# F23: the rate of a run whose epochs are shorter than the warm-up.


def test_f23_the_warm_up_goes_on_over_epochs(inputs, tmp_path, monkeypatch):
    """Of 3 steps each; the rate is read where the update happens."""
    given: list[set[float]] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step",
        lambda self, *a: given.append({group["lr"] for group in self.param_groups}) or step(self, *a),
    )  # fmt: skip
    train(inputs, tmp_path / "train", epochs=4, warmup_steps=10, learning_rate=1e-3, warmup_learning_rate=0.0)
    rates = [row["learning_rate"] for row in rows(tmp_path / "train")]
    assert given == [{rate} for rate in rates] and len(rates) == 12
    assert rates[:11] == pytest.approx([n * 1e-4 for n in range(11)]) and rates[11] < rates[10]


# F27: checkpoints.


@pytest.fixture
def broken_off(monkeypatch):
    """``broken_off(n)``: the run is ended before step ``n``; None: no longer."""
    step = Trainer._step

    def plant(number: int | None) -> None:
        def interrupted(self, batch):
            if self.position.step == number:
                raise KeyboardInterrupt
            step(self, batch)

        monkeypatch.setattr(Trainer, "_step", interrupted)

    return plant


def test_f27_checkpoints_come_by_step_and_the_newest_are_kept(inputs, tmp_path, broken_off):
    """Epochs have 3 steps: nothing waits for their end."""
    broken_off(5)
    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "train", checkpoint_every=2, keep_checkpoints=1)
    folder = tmp_path / "train.partial" / "checkpoints"
    assert [path.name for path in folder.glob("step-*")] == ["step-00000004"]


def test_f27_a_write_that_breaks_off_harms_no_checkpoint(tmp_path, monkeypatch):
    log = tmp_path / "metrics.jsonl"
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2, 3, 4):
        saving.save(checkpoints, step, log)
        checkpoints.wait()
    save = checkpoint_files.save_file

    def half(tensors, path, *more):
        save(tensors, path, *more)
        os.truncate(path, path.stat().st_size // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "save_file", half)
    saving.save(checkpoints, 5, log)
    checkpoints.close()
    assert any("No space left" in line for line in checkpoints.failures())
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*[0-9]")) == [
        "step-00000003", "step-00000004"
    ]  # fmt: skip
    again = Checkpoints(tmp_path / "checkpoints", keep=2)
    found = again.load()
    saving.check(again, found)
    assert found.step == 4


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "metrics.jsonl"])
def test_f27_a_checkpoint_is_verified_before_it_is_used(tmp_path, name):
    log = tmp_path / "log" / "metrics.jsonl"
    log.parent.mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2):
        saving.save(checkpoints, step, log)
    checkpoints.close()
    path = tmp_path / "checkpoints" / "step-00000002" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = Checkpoints(tmp_path / "checkpoints", keep=2)
    found = again.load()
    saving.check(again, found)
    assert found.step == 1 and len(again.failures()) == 1


# F31: the same seed, the same bits.


def test_f31_the_same_seed_makes_the_same_bytes_whatever_was_drawn_before(finished, inputs, tmp_path):
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    torch.rand(1000)
    train(inputs, tmp_path / "again")
    assert storage.sha256_tree(tmp_path / "again") == storage.sha256_tree(finished)
    train(inputs, tmp_path / "other", seed=1)
    ours, other = weights(finished), weights(tmp_path / "other")
    assert not any(torch.equal(ours[name], other[name]) for name in ours if ours[name].ndim == 2)


# F32, F44: none, one or many processes; figures are of all of them.

STEADY = {"drop_path": 0.0, "head": HeadSettings(hidden=16, layers=1, heads=2, feed_forward=32, dropout=0.0)}
"""Without dropout, whose draws follow the process."""


@pytest.fixture(scope="module")
def by_number(inputs, tmp_path_factory) -> dict[str, Path]:
    """The same run without a launcher, with one that started one process, and with one that started two."""
    root = tmp_path_factory.mktemp("processes")
    outs = {name: root / name for name in ("none", "one", "two")}
    two = processes.words(inputs, outs["two"], **STEADY)
    started = processes.start(two, 2)
    assert main(processes.words(inputs, outs["none"], **STEADY)) == 0
    assert not distributed.is_initialized()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0")):
            patch.setenv(name, value)
        assert main(processes.words(inputs, outs["one"], **STEADY)) == 0
    for process in started:
        process.join(processes.LIMIT)
    assert [process.exitcode for process in started] == [0, 0]
    return outs


def test_f32_a_run_needs_no_launcher_and_ends_more_than_one_epoch(by_number):
    digests = [storage.sha256_tree(by_number[name]) for name in ("none", "one")]
    assert digests[0] == digests[1]
    for out in by_number.values():
        assert [row["epoch"] for row in rows(out, "validation")] == [1.0, 2.0]
        assert (out / "model" / "model.safetensors").is_file()


def test_f32_two_processes_make_the_run_of_one(by_number):
    alone, both = rows(by_number["none"]), rows(by_number["two"])
    assert [row["step"] for row in both] == [row["step"] for row in alone] == list(range(6))
    for name, tensor in weights(by_number["none"]).items():
        assert torch.allclose(weights(by_number["two"])[name], tensor, atol=2e-3), name


def test_f44_rows_are_of_all_processes_and_of_every_step(by_number):
    """The public code logs what the first process saw last."""
    names = [f"{kind}_{loss}" for kind in ("loss", "grad_norm") for loss in ("tag", "alignment", "distillation")]
    alone, both = rows(by_number["none"]), rows(by_number["two"])
    for name in (*names, "grad_norm", "cosine_tag_alignment", "cosine_tag_distillation"):
        assert both[0][name] == pytest.approx(alone[0][name], rel=1e-3, abs=1e-5), name
    for name in names:
        assert [row[name] for row in both] == pytest.approx([row[name] for row in alone], rel=0.05), name


def test_f44_gradients_directions_updates_speed_and_memory_are_logged(by_number):
    for out in (by_number["none"], by_number["two"]):
        row = rows(out)[3]
        pairs = ("tag_alignment", "tag_distillation", "alignment_distillation", "previous")
        assert all(-1 <= row[f"cosine_{pair}"] <= 1 for pair in pairs)
        assert row["update_ratio"]["encoder.stage0"] > 0 and row["update_ratio"]["head.layer0"] > 0
        for speed in lines(out.with_name(f"{out.name}.logs"), "speed.jsonl"):
            assert speed["images_per_second"] > 0 and speed["memory_gib"] > 0 and 0 <= speed["data_wait"] <= 1


# F33, F34: fine-tuning is the same loop at a larger size.


def test_f33_f34_fine_tuning_is_the_same_loop_from_the_model_before(finished, inputs, tmp_path, monkeypatch):
    """Window 4 to 8 and 32 pixels to 64, as 7 to 12 and 224 to 384; settings are the recipe's, at the size of tests."""
    options = json.dumps({**artifacts.OPTIONS, "img_size": 64, "window_size": 8})
    given = ["--encoder", artifacts.ENCODER, "--set", f"verify.encoder_options={options}"]
    earlier = str(finished / "model" / "model.safetensors")
    found = ["verify", "--weights", earlier, *given, "--out", str(tmp_path / "verify"), "--set"]
    assert main([*found, "verify.interpolate=false"]) == 2
    assert main([*found, "verify.interpolate=true"]) == 0
    Verdict("verify").write(tmp_path / "verify")  # an encoder of six steps looks random, and is

    begun, step = [], Trainer._step

    def noted(self, batch):
        begun.append(({n: p.detach().clone() for n, p in self.model.named_parameters()}, batch.pixels.shape))
        step(self, batch)

    monkeypatch.setattr(Trainer, "_step", noted)
    recipe = dict(read_settings(RECIPES / "finetune_384_8xa100_40g.yaml").train)
    kept = {name: recipe[name] for name in ("epochs", "missing_tags", "balance", "precision", "learning_rate_rule")}
    train({**inputs, "verify": str(tmp_path / "verify"), "start": str(finished)}, tmp_path / "tuned", **kept)
    before, shape = begun[0]
    assert len(begun) == 3 and shape[1:] == (3, 64, 64)
    own = weights(finished)
    tables = {name for name in own if name.endswith("relative_position_bias_table")}
    same = {name for name in own if name in before and torch.equal(before[name], own[name])}
    assert set(before) - same == tables and len(tables) == 2
    for name in tables:
        small, large = (t.T.unflatten(1, (side, side)) for t, side in ((own[name], 7), (before[name], 15)))
        drawn = torch.nn.functional.interpolate(small[None], (15, 15), mode="bicubic", align_corners=False)[0]
        assert torch.allclose(large, drawn, atol=1e-6)


# F36: validation, and the best weights.


@pytest.mark.parametrize(("scores", "best"), [((0.9, 0.1), 3), ((0.1, 0.9), 6)])
def test_f36_the_model_is_of_the_best_validation(inputs, tmp_path, monkeypatch, scores, best):
    validate, told, seen = loop.validate, iter(scores), {}
    step = Trainer._validate

    def noted(self):
        seen[self.position.step] = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        step(self)

    monkeypatch.setattr(Trainer, "_validate", noted)
    monkeypatch.setattr(loop, "validate", lambda *given: {**validate(*given), "mAP": next(told)})
    verdict = train(inputs, tmp_path / "train", validate_every=3)
    assert [(row["step"], row["mAP"]) for row in rows(tmp_path / "train", "validation")] == [
        (3, scores[0]), (6, scores[1])
    ]  # fmt: skip
    own = weights(tmp_path / "train")
    for number, kept in seen.items():
        assert all(torch.equal(own[name], kept[name]) for name in kept) == (number == best), number
    assert verdict.metrics["best_step"] == best
