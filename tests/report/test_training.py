"""The page's part of training with all that the engine measures."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from ramflow.report import charts
from ramflow.report.charts import Line, Mark
from ramflow.report.train import _rand_augment
from tests.report.conftest import Run, reseal
from tests.report.rich import write_logs
from tests.report.test_page import Page, html_of


@pytest.fixture(scope="module")
def rich(drawn_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("rich")
    shutil.copytree(drawn_run["train"], root / "train")
    images = pl.read_parquet(drawn_run["data"] / "manifest.parquet")["image_path"].to_list()[:9]
    write_logs(root / "train", root / "logs", [*images, "gone/of-another-dataset.png"])
    reseal(root / "train")
    return {name: drawn_run[name] for name in ("data", "audit", "embed", "verify")} | {"train": root / "train"}


@pytest.fixture(scope="module")
def html(rich: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_of(rich, tmp_path_factory.mktemp("page") / "report.html", gallery=6)


def training(html: str) -> str:
    found = re.search(r'<section id="train".*?</section>', html, re.S)
    assert found
    return found[0]


def test_every_measure_has_its_curve(html: str) -> None:
    text = Page(training(html)).text
    for title in ("Losses, relative", "Losses, weighted", "Do the losses agree", "Update to weight, encoder",
                  "Direction", "Update to weight, the rest", "Re-weighting scale",
                  "Validation mAP by status"):  # fmt: skip
        assert title in text, title
    legends = [Page(found).text for found in re.findall(r'<span class="legend">.*?</span></span>', training(html))]
    assert "patch embed stage0 stage1 stage2 stage3 norm" in legends
    assert "image projection reweighting project layer0 layer1 logit" in legends
    assert "present rare" in legends and "weights of the step averaged weights" in legends
    assert "tag alignment distillation" in legends
    assert "No values" not in text and "predict the mean" in html


def test_skips_rewinds_and_findings_are_marked_on_the_losses(html: str) -> None:
    figures = {Page(f).text.split(" 1 is")[0]: f for f in re.findall(r"<figure.*?</figure>", training(html), re.S)}
    marked = {title.split()[0] for title, f in figures.items() if 'class="event skip"' in f}
    assert {"Losses,", "Weighted", "Tags", "Alignment", "Distillation", "Gradient"} == marked
    one = next(f for title, f in figures.items() if title.startswith("Tags"))
    assert [len(re.findall(f'class="event {kind}"', one)) for kind in ("skip", "rewind", "finding")] == [2, 1, 1]
    assert "step left out (2) back to a checkpoint (1) finding (1)" in Page(training(html)).text


def test_events_tell_what_happened_and_show_the_images(html: str) -> None:
    page = Page(training(html))
    assert "1,200 skip loss_tag 212 is above its limit 31.2: the update was left out; look at the images" in page.text
    assert "loss_tag 212, limit 31.2; loss_alignment 4.1; loss_distillation 0.200, limit 0.310" in page.text
    assert "2,100 rewind 5 steps in a row were left out: back to the checkpoint of step 2000" in page.text
    assert "3,200 plateau loss_distillation has not improved since step 2600" in page.text
    assert "0 out_of_memory micro_batch 26" in page.text
    assert "10 images of the batch" in page.text and "gone/of-another-dataset.png" in page.text
    assert len(page.images) == 6 + 2  # of ten, and of two


def test_without_a_gallery_no_image_is_shown(rich: Run, tmp_path: Path) -> None:
    html = html_of(rich, tmp_path / "report.html", gallery=0)
    assert "<img" not in html and "10 images of the batch" in html


def test_speed_is_shown_only_where_it_is_given(html: str, rich: Run, tmp_path: Path) -> None:
    assert "Images a second" not in html
    given = rich | {"logs": rich["train"].parent / "logs"}
    text = Page(training(html_of(given, tmp_path / "report.html"))).text
    for title in ("Speed and memory", "Images a second", "Waiting for data", "Memory 31.4", "Micro-batch 26"):
        assert title in text, title


def test_null_values_leave_gaps(rich: Run, tmp_path: Path) -> None:
    shutil.copytree(rich["train"], tmp_path / "train")
    path = tmp_path / "train" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::7]:
        row |= dict.fromkeys(("loss", "loss_tag", "tag_relative", "grad_norm", "scale", "mAP_rare"))
        row["update_ratio"] = {"encoder.stage0": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reseal(tmp_path / "train")
    html = html_of(rich | {"train": tmp_path / "train"}, tmp_path / "report.html")
    assert "nan" not in re.sub(r"base64,[^\"]*", "", training(html))


def test_the_settings_that_decide_are_shown_for_new_and_old_runs(html: str, rich: Run, tmp_path: Path) -> None:
    text = Page(training(html)).text
    assert "Micro-batch whole share" in text and "of batches of 416" in text
    assert "Balance upstream as at a batch of 52 a GPU" in text and "at a batch of 416, square root rule" in text
    shutil.copytree(rich["train"], tmp_path / "train")
    settings = json.loads((tmp_path / "train" / "verdict.json").read_text())["settings"]
    for key in ("balance", "micro_batch", "learning_rate_rule", "learning_rate_batch"):
        del settings[key]
    settings["loss"] = {"tag": 1.0, "alignment": 10.0, "distillation": 100.0}
    reseal(tmp_path / "train", settings=settings)
    old = Page(training(html_of(rich | {"train": tmp_path / "train"}, tmp_path / "report.html"))).text
    assert "Loss weights 1 : 10 : 100" in old and "Micro-batch" not in old


def test_marks_outside_the_curve_are_left_out_and_cannot_inject_markup() -> None:
    marks = [Mark(5, "skip", "<script>"), Mark(500, "skip", "later")]
    svg = charts.line_chart([Line("loss", [0, 10], [1.0, 2.0])], "loss", marks=marks)
    assert svg.count('class="event skip"') == 1 and 'x1="50.00%"' in svg
    assert "<script" not in svg and "&lt;script&gt;" in svg


def test_the_public_auto_contrast_is_named() -> None:
    augment = {"operations": 2, "magnitude": 5}
    assert _rand_augment(augment) == _rand_augment(augment | {"auto_contrast": "correct"})
    assert "turns most images white" in _rand_augment(augment | {"auto_contrast": "public"})
