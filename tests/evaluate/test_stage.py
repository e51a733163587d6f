"""The evaluate stage on a tiny trained model."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from ramflow import storage
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.evaluate.stage import run
from ramflow.metrics import average_precision
from ramflow.settings import EvaluateSettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.tag_lists.edit import drop
from ramflow.tags import read_tags
from tests.train.artifacts import damage
from tests.train.conftest import inputs, trained  # noqa: F401

EVALUATE = next(stage for stage in STAGES if stage.name == "evaluate")
SETTINGS = EvaluateSettings(batch=4, device="cpu", min_ratio_to_frequency=0.0)


@pytest.fixture(scope="module")
def evaluated(inputs, trained, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("evaluated") / "evaluate"
    given = {"data": inputs["data"], "audit": inputs["audit"], "train": str(trained), "scratch": str(trained)}
    execute(EVALUATE, SETTINGS, given, str(out))
    return out, given


def test_evaluation_holds_metrics_and_both_baselines(evaluated):
    content = json.loads((evaluated[0] / "evaluation.json").read_text())
    metrics, baselines = content["metrics"], content["baselines"]
    assert metrics["images"] == 6 and metrics["tags"] == 6 and metrics["tags_scored"] == 5
    assert content["excluded_tags"] == ["unicorn"] and content["unreadable"] == []
    assert metrics["mAP_public"] == pytest.approx(metrics["mAP"] * 5 / 6)
    assert baselines["from_scratch"]["mAP"] == metrics["mAP"]
    # every image gets the same score: the average precision of a tag is its share of the test images
    assert baselines["tag_frequency"]["mAP"] == pytest.approx((3 * 2 / 6 + 2 * 3 / 6) / 5)


def test_per_tag_agrees_with_the_scores(evaluated):
    tensors = load_file(evaluated[0] / "scores.safetensors")
    frame = pl.read_parquet(evaluated[0] / "per_tag.parquet")
    assert frame["name"].to_list() == ["circle", "square", "triangle", "red", "blue", "unicorn"]
    assert frame["ap"][5] is None and frame["positives"].to_list() == [2, 2, 2, 3, 3, 0]
    targets = tensors["targets"].astype(bool)
    for t in range(5):
        assert frame["ap"][t] == pytest.approx(average_precision(tensors["scores"][:, t], targets[:, t]))
        predicted = tensors["scores"][:, t] > frame["threshold"][t]
        assert frame["recall"][t] == pytest.approx((predicted & targets[:, t]).sum() / targets[:, t].sum())


def test_the_tag_frequency_is_that_of_the_training_images(evaluated):
    dataset = Dataset(Path(evaluated[1]["data"]))
    expected = np.zeros(6)
    for tags in dataset.manifest["union_tags"][:12].to_list():
        expected[tags] += 1 / 12
    assert np.allclose(pl.read_parquet(evaluated[0] / "per_tag.parquet")["frequency"], expected)


def test_same_inputs_same_bytes(evaluated, tmp_path):
    execute(EVALUATE, SETTINGS, evaluated[1], str(tmp_path / "again"))
    assert storage.sha256_tree(tmp_path / "again") == storage.sha256_tree(evaluated[0])


def test_without_a_from_scratch_run(evaluated, tmp_path):
    given = {k: v for k, v in evaluated[1].items() if k != "scratch"}
    result = execute(EVALUATE, SETTINGS, given, str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["baselines"]["from_scratch"]["mAP"] is None
    assert "evaluate.above_scratch" not in {c.id for c in result.checks}


def test_a_model_below_the_baseline_is_a_no(evaluated, tmp_path):
    settings = SETTINGS.model_copy(update={"min_ratio_to_frequency": 1000.0})
    result = execute(EVALUATE, settings, evaluated[1], str(tmp_path / "out"))
    assert [c.id for c in result.failures()] == ["evaluate.above_frequency"]


def test_unreadable_images_are_counted_listed_and_refused(evaluated, copy_of, tmp_path):
    dataset = Dataset(copy_of(Path(evaluated[1]["data"])))
    first = dataset.splits["test"].start
    damage(dataset, first)
    result = execute(EVALUATE, SETTINGS, evaluated[1] | {"data": str(dataset.directory)}, str(tmp_path / "out"))
    assert [(c.id, c.count, c.examples) for c in result.failures()] == [
        ("evaluate.unreadable", 1, [dataset.manifest["image_path"][first]])
    ]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]["images"] == 5


def test_refuses_a_model_of_another_tag_list(evaluated, tmp_path):
    model = Path(shutil.copytree(evaluated[1]["train"], tmp_path / "train"))
    table = (model / "model" / "tags.csv").read_text().replace("square", "rectangle")
    (model / "model" / "tags.csv").write_text(table)
    paths = {k: Path(v) for k, v in evaluated[1].items() if k != "scratch"} | {"train": model}
    with pytest.raises(UserError, match="different tag lists"):
        run(SETTINGS, **paths, out=tmp_path)


def test_scores_are_probabilities_of_every_test_image(evaluated):
    tensors = load_file(evaluated[0] / "scores.safetensors")
    dataset = Dataset(Path(evaluated[1]["data"]))
    assert tensors["samples"].tolist() == list(dataset.splits["test"])
    assert ((tensors["scores"] > 0) & (tensors["scores"] < 1)).all()
    assert tensors["scores"].dtype == np.float32


def test_dropped_tags_are_listed_and_in_no_score(evaluated, tmp_path):
    paths = {name: Path(path) for name, path in evaluated[1].items()}
    paths["audit"] = Path(shutil.copytree(paths["audit"], tmp_path / "audit"))
    drop(read_tags(paths["audit"] / "tag_status.csv"), ["red"]).write(paths["audit"] / "tag_status.csv")
    (tmp_path / "out").mkdir()
    verdict = run(SETTINGS, **paths, out=tmp_path / "out")
    before = json.loads((evaluated[0] / "evaluation.json").read_text())
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert before["dropped_tags"] == [] and content["dropped_tags"] == ["red"]
    assert content["excluded_tags"] == ["unicorn"]
    assert content["metrics"]["tags"] == 5 and content["metrics"]["tags_scored"] == 4
    ap = pl.read_parquet(evaluated[0] / "per_tag.parquet")["ap"].to_list()
    kept = [ap[i] for i in (0, 1, 2, 4)]
    assert content["metrics"]["mAP"] == pytest.approx(sum(kept) / 4)
    assert content["metrics"]["mAP_public"] == pytest.approx(sum(kept) / 5)
    frame = pl.read_parquet(tmp_path / "out" / "per_tag.parquet")
    assert frame["ap"][3] is None and frame["status"][3] == "dropped"
    [listed] = [c for c in verdict.checks if c.id == "evaluate.dropped_tags"]
    assert listed.passed and listed.examples == ["red"]
