"""The train stage as a whole: what it writes, what it refuses, that it goes on and repeats itself."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from ramflow import storage
from ramflow.data.dataset import Dataset
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
    loss = artifacts.settings().loss
    for row in rows(trained / "metrics.jsonl", "train"):
        total = (
            loss.tag * row["loss_tag"]
            + loss.alignment * row["loss_alignment"]
            + loss.distillation * row["loss_distillation"]
        )
        assert row["loss"] == pytest.approx(total, rel=1e-5)


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
    assert storage.sha256_tree(out) == storage.sha256_tree(trained)


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
    with pytest.raises(UserError, match="not finite"):
        execute(
            TRAIN, artifacts.settings(learning_rate=1e30, warmup_steps=0, epochs=8), inputs, str(tmp_path / "train")
        )
    events = (tmp_path / "train.partial" / "events.jsonl").read_text().splitlines()
    assert len(events) == loop.MAX_SKIPPED and json.loads(events[0])["event"] == "non_finite"


def test_quarantined_samples_are_never_read(inputs, tmp_path, monkeypatch):
    audit = Path(shutil.copytree(inputs["audit"], tmp_path / "audit"))
    bad = Dataset(Path(inputs["data"])).samples("train").head(3)
    columns = pl.read_parquet(audit / "quarantine.parquet").schema
    frame = bad.select(
        pl.col("sample").cast(columns["sample"]), "key", "split", "image_path", pl.lit("x").alias("check")
    )
    frame.write_parquet(audit / "quarantine.parquet")
    Verdict("audit").write(audit)
    seen = []
    read = Dataset.read
    monkeypatch.setattr(
        Dataset, "read", lambda s, shard, offset, length: seen.append((shard, offset)) or read(s, shard, offset, length)
    )
    result = execute(TRAIN, artifacts.settings(), {**inputs, "audit": str(audit)}, str(tmp_path / "train"))
    assert result.metrics["images"] == 9
    assert seen and not set(seen) & set(bad.select("shard", "offset").iter_rows())


def test_missing_tags_get_no_gradient(inputs):
    torch.manual_seed(0)
    from ramflow.model.losses import tag_loss

    logits = torch.randn(3, 6, requires_grad=True)
    mask = torch.tensor([1, 1, 1, 1, 1, 0], dtype=torch.bool)
    tag_loss(logits, torch.zeros(3, 6, dtype=torch.bool), mask).backward()
    assert (logits.grad[:, 5] == 0).all() and (logits.grad[:, :5] != 0).all()
