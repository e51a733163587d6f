"""The train stage as a whole: what it writes, what it refuses, that it goes on and repeats itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from ramflow import storage
from ramflow.data.dataset import Dataset
from ramflow.data.order import Order
from ramflow.data.vectors import read_tag_embeddings
from ramflow.errors import GateRefused, UserError
from ramflow.model.saved import load_model
from ramflow.stage import execute
from ramflow.tags import TagTable
from ramflow.train import loop
from ramflow.verdict import Check, Verdict, read_verdict
from tests.train import artifacts
from tests.train.conftest import TRAIN


def rows(path: Path, kind: str) -> list[dict]:
    return [r for line in path.read_text().splitlines() if (r := json.loads(line))["kind"] == kind]


def test_writes_losses_norms_validation_and_a_model(trained):
    train = rows(trained / "metrics.jsonl", "train")
    assert [r["step"] for r in train] == list(range(6))
    for key in ("loss", "loss_tag", "loss_alignment", "loss_distillation", "distillation_relative", "scale"):
        assert all(r[key] > 0 for r in train), key
    for key in ("grad_norm", "grad_norm_tag", "grad_norm_alignment", "grad_norm_distillation"):
        assert all(r[key] > 0 for r in train), key
    validation = rows(trained / "metrics.jsonl", "validation")
    assert [r["step"] for r in validation] == [3, 6]
    assert all(0 <= r["mAP_public"] <= r["mAP"] <= 1 for r in validation)
    saved = load_model(trained)
    assert saved.preprocessing.size == 32
    assert saved.tags.status[-1] == "missing" and len(saved.tags.thresholds) == 6
    assert read_verdict(trained).metrics["best_step"] in (3, 6)


def test_the_weighted_sum_is_what_is_trained_on(trained):
    weights = {"tag": 1.0, "alignment": 1.0, "distillation": 1 / 52}
    for row in rows(trained / "metrics.jsonl", "train"):
        for name, weight in weights.items():
            assert row[f"weighted_{name}"] == pytest.approx(weight * row[f"loss_{name}"], rel=1e-6)
        assert row["loss"] == pytest.approx(sum(row[f"weighted_{name}"] for name in weights), rel=1e-6)


def test_same_inputs_same_bytes(trained, inputs, tmp_path):
    execute(TRAIN, artifacts.settings(), inputs, str(tmp_path / "again"))
    assert storage.sha256_tree(tmp_path / "again") == storage.sha256_tree(trained)


def test_workers_do_not_change_the_batches(trained, inputs, tmp_path):
    execute(TRAIN, artifacts.settings(workers=1), inputs, str(tmp_path / "worker"))
    assert (tmp_path / "worker" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("stop_before", [1, 3, 5])
def test_goes_on_after_an_interruption_bit_for_bit(trained, inputs, tmp_path, monkeypatch, stop_before):
    step = loop.Trainer._step

    def interrupted(self, batch):
        if self.position.step == stop_before:
            raise KeyboardInterrupt
        step(self, batch)

    out = tmp_path / "train"
    monkeypatch.setattr(loop.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(TRAIN, artifacts.settings(), inputs, str(out))
    assert not out.exists()
    monkeypatch.setattr(loop.Trainer, "_step", step)
    execute(TRAIN, artifacts.settings(), inputs, str(out))
    assert storage.sha256_tree(out) == storage.sha256_tree(trained)


def test_a_torn_checkpoint_is_passed_over(trained, inputs, tmp_path, monkeypatch):
    step = loop.Trainer._step

    def interrupted(self, batch):
        if self.position.step == 5:
            raise KeyboardInterrupt
        step(self, batch)

    out = tmp_path / "train"
    monkeypatch.setattr(loop.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(TRAIN, artifacts.settings(), inputs, str(out))
    newest = max((tmp_path / "train.partial" / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-7])
    monkeypatch.setattr(loop.Trainer, "_step", step)
    execute(TRAIN, artifacts.settings(), inputs, str(out))
    ours, whole = storage.sha256_tree(out), storage.sha256_tree(trained)
    unlike = {name for name in ours if ours[name] != whole[name]}
    assert {Path(name).name for name in unlike} == {"events.jsonl", "state.json", "verdict.json"}
    assert [e["event"] for e in events(out)] == ["checkpoint"]


def test_other_settings_do_not_go_on_from_old_checkpoints(inputs, tmp_path, monkeypatch):
    step = loop.Trainer._step
    steps = []

    def interrupted(self, batch):
        steps.append(self.position.step)
        if len(steps) == 5:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(loop.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(TRAIN, artifacts.settings(), inputs, str(tmp_path / "train"))
    execute(TRAIN, artifacts.settings(seed=1), inputs, str(tmp_path / "train"))
    assert steps == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]


def test_refuses_an_encoder_that_is_not_the_attested_one(inputs, tmp_path):
    verify = Path(shutil.copytree(inputs["verify"], tmp_path / "verify"))
    state = load_file(verify / "encoder.safetensors")
    state["norm.weight"] += 0.5
    save_file(state, verify / "encoder.safetensors")
    with pytest.raises(UserError, match=r"not the one that verify attested.*norm\.weight"):
        execute(TRAIN, artifacts.settings(), {**inputs, "verify": str(verify)}, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_refuses_embeddings_of_another_tag_list(inputs, tmp_path):
    embed = Path(shutil.copytree(inputs["embed"], tmp_path / "embed"))
    vectors = read_tag_embeddings(embed)
    other = TagTable(["square", "circle", "triangle", "red", "blue", "unicorn"]).digest
    type(vectors)(vectors.embeddings, vectors.mask, other, vectors.encoder).write(embed)
    with pytest.raises(UserError, match="embeddings were made from another tag list"):
        execute(TRAIN, artifacts.settings(), {**inputs, "embed": str(embed)}, str(tmp_path / "out"))


def test_refuses_a_verify_that_said_no(inputs, tmp_path):
    verify = Path(shutil.copytree(inputs["verify"], tmp_path / "verify"))
    no = Check("weights.pretrained", "error", 1, 1, 0, False, "looks random")
    Verdict("verify", checks=[no]).write(verify)
    with pytest.raises(GateRefused, match=r"verify says no: weights\.pretrained"):
        execute(TRAIN, artifacts.settings(), {**inputs, "verify": str(verify)}, str(tmp_path / "out"))


def test_from_scratch_must_be_asked_for_and_is_said(trained, inputs, tmp_path):
    result = execute(TRAIN, artifacts.settings(from_scratch=True), inputs, str(tmp_path / "scratch"))
    assert [c.id for c in result.checks if not c.passed] == ["train.from_scratch"]
    assert json.loads((tmp_path / "scratch" / "model" / "provenance.json").read_text())["weights"] is None
    first = [rows(d / "metrics.jsonl", "train")[0]["loss"] for d in (trained, tmp_path / "scratch")]
    assert first[0] != first[1]


def test_bfloat16_stays_near_float32(trained, inputs, tmp_path):
    execute(TRAIN, artifacts.settings(precision="bfloat16"), inputs, str(tmp_path / "train"))
    for a, b in zip(
        rows(tmp_path / "train" / "metrics.jsonl", "train"), rows(trained / "metrics.jsonl", "train"), strict=True
    ):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.05)


def test_a_loss_that_is_not_finite_never_reaches_the_weights(inputs, tmp_path):
    with pytest.raises(UserError, match=r"loss_tag is nan.*max_rewinds"):
        execute(
            TRAIN, artifacts.settings(learning_rate=1e30, warmup_steps=0, epochs=8), inputs, str(tmp_path / "train")
        )
    found = events(tmp_path / "train.partial")
    assert {e["event"] for e in found} >= {"skip", "rewind"}
    skips = [e["detail"] for e in found if e["event"] == "skip"]
    assert all(s["reason"] == "non_finite" and len(s["samples"]) == 4 for s in skips)
    for kept in (tmp_path / "train.partial" / "checkpoints").rglob("model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(kept).values())


def test_quarantined_samples_are_never_read(inputs, tmp_path, monkeypatch):
    audit = Path(shutil.copytree(inputs["audit"], tmp_path / "audit"))
    schema = pl.read_parquet_schema(audit / "quarantine.parquet")
    rows = Dataset(Path(inputs["data"])).scan().slice(0, 3).collect().with_columns(check=pl.lit("x"))
    rows.select(pl.col(name).cast(schema[name]) for name in schema).write_parquet(audit / "quarantine.parquet")
    Verdict("audit").write(audit)
    seen, image = set(), Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda dataset, sample: seen.add(sample) or image(dataset, sample))
    result = execute(TRAIN, artifacts.settings(), {**inputs, "audit": str(audit)}, str(tmp_path / "train"))
    assert result.metrics["images"] == 9
    assert seen == set(range(3, 18))  # all others of train, and the six of validation


def damaged_inputs(inputs, copy_of, *samples: int) -> dict[str, str]:
    """The inputs with the images of ``samples`` truncated after the audit."""
    dataset = Dataset(copy_of(Path(inputs["data"])))
    for sample in samples:
        artifacts.damage(dataset, sample)
    return {**inputs, "data": str(dataset.directory)}


def events(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_left_out_and_said(inputs, copy_of, tmp_path, workers):
    given = damaged_inputs(inputs, copy_of, 5)
    settings = artifacts.settings(max_skipped_share=0.1, workers=workers)
    result = execute(TRAIN, settings, given, str(tmp_path / "train"))
    found = events(tmp_path / "train")
    assert [(e["event"], e["detail"]["sample"], e["detail"]["path"]) for e in found] == [
        ("skipped_image", 5, "shapes/triangle_blue_0.jpg")
    ] * 2
    assert all(e["detail"]["reason"] for e in found) and [int(e["epoch"]) for e in found] == [0, 1]
    assert result.metrics["skipped_images"] == 2
    (check,) = [c for c in result.checks if c.id == "train.skipped_images"]
    assert (check.count, check.total, check.severity) == (2, 24, "warning") and not check.passed
    assert rows(tmp_path / "train" / "metrics.jsonl", "train")[-1]["skipped_images"] == 2


def test_more_images_left_out_than_settings_allow_is_an_error(inputs, copy_of, tmp_path):
    given = damaged_inputs(inputs, copy_of, 5)
    words = r"1 of the first \d+ images.*max_skipped_share 0.001.*triangle_blue_0"
    with pytest.raises(UserError, match=words) as caught:
        execute(TRAIN, artifacts.settings(), given, str(tmp_path / "train"))
    assert len(str(caught.value).splitlines()) == 1
    assert [e["event"] for e in events(tmp_path / "train.partial")] == ["skipped_image"]


def test_a_clean_run_leaves_no_image_out(trained):
    assert events(trained) == [] and read_verdict(trained).metrics["skipped_images"] == 0


def test_a_batch_without_a_readable_image_is_a_step_without_an_update(inputs, copy_of, tmp_path):
    given = damaged_inputs(inputs, copy_of, *range(12))
    with pytest.raises(UserError, match="no training image is readable"):
        execute(TRAIN, artifacts.settings(max_skipped_share=1.0), given, str(tmp_path / "none"))
    dataset = Dataset(Path(inputs["data"]))
    settings = artifacts.settings(max_skipped_share=1.0)
    order = Order(np.arange(12), [s.range for s in dataset.shards], settings.seed, dataset.digest, 64)
    first = order.at(0, 0, 4).tolist()
    shutil.rmtree(given["data"])
    given = damaged_inputs(inputs, copy_of, *first)
    execute(TRAIN, settings, given, str(tmp_path / "train"))
    assert [e["detail"]["sample"] for e in events(tmp_path / "train") if e["step"] == 0] == first
    assert rows(tmp_path / "train" / "metrics.jsonl", "train")[0]["step"] == 1


def test_what_was_left_out_is_counted_across_an_interruption(inputs, copy_of, tmp_path, monkeypatch):
    given, settings = damaged_inputs(inputs, copy_of, 5), artifacts.settings(max_skipped_share=0.1)
    execute(TRAIN, settings, given, str(tmp_path / "whole"))
    step = loop.Trainer._step

    def interrupted(self, batch):
        if self.position.step == 5:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(loop.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(TRAIN, settings, given, str(tmp_path / "train"))
    monkeypatch.setattr(loop.Trainer, "_step", step)
    execute(TRAIN, settings, given, str(tmp_path / "train"))
    assert storage.sha256_tree(tmp_path / "train") == storage.sha256_tree(tmp_path / "whole")


def test_a_shard_that_is_gone_is_one_line(inputs, copy_of, tmp_path):
    data = copy_of(Path(inputs["data"]))
    shard = Dataset(data).shard_of(11).name
    (data / shard).unlink()
    for workers in (0, 1):
        with pytest.raises(UserError, match=f"{shard} is gone") as caught:
            execute(TRAIN, artifacts.settings(workers=workers), {**inputs, "data": str(data)}, str(tmp_path / "train"))
        assert len(str(caught.value).splitlines()) == 1


def test_the_teacher_sees_its_own_size(inputs, tmp_path):
    """The student has 32 pixels, the teacher 48: one decode, both sizes."""
    clip = artifacts.write_clip(tmp_path / "clip", 48)
    result = execute(TRAIN, artifacts.settings(), {**inputs, "clip": str(clip)}, str(tmp_path / "train"))
    assert result.passed


def test_missing_tags_get_no_gradient(inputs):
    torch.manual_seed(0)
    from ramflow.model.losses import tag_loss

    logits = torch.randn(3, 6, requires_grad=True)
    mask = torch.tensor([1, 1, 1, 1, 1, 0], dtype=torch.bool)
    tag_loss(logits, torch.zeros(3, 6, dtype=torch.bool), mask).backward()
    assert (logits.grad[:, 5] == 0).all() and (logits.grad[:, :5] != 0).all()


def test_a_trained_head_is_not_put_on_a_random_encoder(trained, inputs, tmp_path):
    with pytest.raises(UserError, match="leave out --start"):
        execute(TRAIN, artifacts.settings(from_scratch=True), inputs | {"start": str(trained)}, str(tmp_path / "train"))


def test_another_encoder_than_the_heads_is_said_first(trained, inputs, tmp_path, capsys):
    result = execute(TRAIN, artifacts.settings(epochs=1), inputs | {"start": str(trained)}, str(tmp_path / "train"))
    said = capsys.readouterr().err
    assert said.index("trained with another encoder") < said.index("train: 12 images")
    assert [check.id for check in result.checks if not check.passed and check.severity == "warning"] == ["train.start"]
