"""``ramflow tag`` as it is typed: what it says, of which pictures, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import statistics

import boto3
import numpy as np
import pytest
from safetensors.numpy import load_file

from ramflow.data.dataset import Dataset
from ramflow.evaluate.stage import run as evaluate
from ramflow.settings import EvaluateSettings
from ramflow.tag_lists.edit import drop
from ramflow.tags import TagTable, read_tags
from tests.conftest import TAGS
from tests.tagging.conftest import THRESHOLDS

PICTURE = "shapes/circle_red_0.jpg"


def table(path, **columns):
    TagTable(list(TAGS), **columns).write(path)
    return path


def names(line):
    """The tags of a line of text, without their scores."""
    return [tag.rpartition(" ")[0] for tag in line.rpartition(": ")[2].split(", ")]


def test_scores_are_those_of_evaluate(model, tiny_data, tiny_audit, images_dir, scores, tmp_path):
    (tmp_path / "out").mkdir()
    settings = EvaluateSettings(batch=6, device="cpu", min_ratio_to_frequency=0)
    evaluate(settings, data=tiny_data, audit=tiny_audit, train=model, out=tmp_path / "out")
    wanted = load_file(tmp_path / "out" / "scores.safetensors")
    paths = [images_dir / Dataset(tiny_data).manifest["image_path"][i] for i in wanted["samples"].tolist()]
    found = scores(*paths, "--batch", 6)
    assert list(found) == [str(path) for path in paths]
    given = np.array([[said[name] for name in TAGS] for said in found.values()])
    np.testing.assert_allclose(given, wanted["scores"], atol=6e-7)
    assert wanted["scores"].std(axis=0).min() > 1e-3, "pictures that are told apart"


def test_what_is_above_its_own_threshold_is_said_best_first(images_dir, tag, scores, tmp_path):
    every = scores(images_dir)
    middle = [statistics.median(of[name] for of in every.values()) for name in TAGS]
    code, lines, _ = tag(images_dir, "--tags", table(tmp_path / "tags.csv", thresholds=middle))
    assert code == 0 and len(lines) == len(every) == 24
    lengths = set()
    for line, (image, of) in zip(lines, every.items(), strict=True):
        said = [name for name, threshold in zip(TAGS, middle, strict=True) if of[name] > threshold]
        said.sort(key=lambda name: -of[name])
        wanted = ", ".join(f"{name} {of[name]:.2f}" for name in said)
        assert line == f"{image}: {wanted or 'no tag'}"
        lengths.add(len(said))
    assert len(lengths) > 2, "thresholds that tell pictures apart"
    [line] = tag(images_dir / PICTURE)[1]
    of = every[str(images_dir / PICTURE)]
    assert set(names(line)) == {name for name, own in zip(TAGS, THRESHOLDS, strict=True) if of[name] > own}


def test_one_threshold_for_all_and_the_best_few(images_dir, tag, scores):
    [of] = scores(images_dir / PICTURE).values()
    best = sorted(TAGS, key=lambda name: -of[name])
    assert names(tag(images_dir / PICTURE, "--top", 4)[1][0]) == best[:4]
    middle = (of[best[1]] + of[best[2]]) / 2
    assert names(tag(images_dir / PICTURE, "--threshold", middle)[1][0]) == best[:2]
    assert names(tag(images_dir / PICTURE, "--threshold", middle, "--top", 1)[1][0]) == best[:1]
    assert names(tag(images_dir / PICTURE, "--threshold", middle, "--top", 4)[1][0]) == best[:2]
    assert tag(images_dir / PICTURE, "--threshold", 1)[1] == [f"{images_dir / PICTURE}: no tag"]


def test_json_has_ids_names_scores_and_thresholds(images_dir, tag):
    code, [line], _ = tag(images_dir / PICTURE, "--json", "--top", 6)
    row = json.loads(line)
    assert code == 0 and row["image"] == str(images_dir / PICTURE)
    assert [list(said) for said in row["tags"]] == [["id", "name", "chinese", "score", "threshold"]] * 6
    assert {said["id"]: (said["name"], said["threshold"]) for said in row["tags"]} == {
        i: (name, THRESHOLDS[i]) for i, name in enumerate(TAGS)
    }
    assert {said["name"]: said["chinese"] for said in row["tags"]}["red"] == "红"


def test_chinese_names_and_both(images_dir, tag):
    chinese = names(tag(images_dir / PICTURE, "--top", 6, "--chinese")[1][0])
    assert set(chinese) == {"圆", "方", "三角", "红", "蓝", "unicorn"}
    both = names(tag(images_dir / PICTURE, "--top", 6, "--both")[1][0])
    assert set(both) == {"circle 圆", "square 方", "triangle 三角", "red 红", "blue 蓝", "unicorn"}


def test_dropped_tags_are_never_said(model, images_dir, tag, scores, tmp_path):
    own = tmp_path / "train"
    shutil.copytree(model, own)
    drop(read_tags(own / "model" / "tags.csv"), ["red"]).write(own / "model" / "tags.csv")
    for more in (["--top", 6], ["--threshold", 0]):
        assert set(names(tag(images_dir / PICTURE, *more, model=own)[1][0])) == set(TAGS) - {"red"}
    drop(TagTable(list(TAGS)), ["blue"]).write(tmp_path / "tags.csv")
    said = tag(images_dir / PICTURE, "--top", 6, "--tags", tmp_path / "tags.csv", model=own)[1][0]
    assert set(names(said)) == set(TAGS) - {"red", "blue"}


def test_another_table_of_the_same_list(images_dir, tag, tmp_path):
    path = table(tmp_path / "tags.csv", thresholds=[0.0] * 5 + [1.0], chinese=list("abcdef"))
    assert set(names(tag(images_dir / PICTURE, "--tags", path, "--chinese")[1][0])) == set("abcde")
    (tmp_path / "other.txt").write_text("\n".join([*TAGS[:5], "horse"]))
    code, lines, [error] = tag(images_dir / PICTURE, "--tags", tmp_path / "other.txt")
    assert (code, lines) == (2, []) and "is another tag list (6 tags" in error


def test_a_folder_is_all_images_below_it_in_order(images_dir, tag, tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("b/2.JPG", "b/deep/3.jpeg", "1.jpg"):
        shutil.copy(images_dir / PICTURE, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    code, lines, errors = tag(tmp_path, tmp_path / "1.jpg", "--top", 1)
    assert [line.partition(": ")[0].removeprefix(f"{tmp_path}/") for line in lines] == [
        "1.jpg", "b/2.JPG", "b/deep/3.jpeg", "1.jpg",
    ]  # fmt: skip
    assert (code, errors) == (0, [])


def test_what_cannot_be_read_is_named_and_the_others_are_tagged(images_dir, tag, tmp_path):
    whole = (images_dir / PICTURE).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "none.jpg").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "good").write_bytes(whole)
    wanted = ["cut.jpg", "page.jpg", "good", "none.jpg", "empty", "absent.jpg", ""]
    code, [line], errors = tag(*(tmp_path / name if name else "" for name in wanted), "--batch", 2, "--top", 1)
    assert code == 2 and line.startswith(f"{tmp_path / 'good'}: ")
    reasons = dict(error.removeprefix(f"ramflow: {tmp_path}/").split(": ", 1) for error in errors[:5])
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "cut.jpg": "truncated", "page.jpg": "not an image", "none.jpg": "empty",
        "empty": "no image in this folder or below it", "absent.jpg": "no such file or folder",
    }  # fmt: skip
    last = "ramflow: 6 of 7 could not be tagged; each is named above"
    assert errors[5:] == ["ramflow: : no such file or folder", last]


def test_a_file_that_may_not_be_read_and_a_name_of_any_bytes(images_dir, tag, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    shutil.copy(images_dir / PICTURE, odd)
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "link.jpg")
    code, [line], errors = tag(tmp_path, "--top", 1, "--json")
    assert code == 2 and "link.jpg: No such file or directory" in errors[0]
    assert json.loads(line)["image"] == odd


def test_the_model_and_the_pictures_in_s3(model, bucket, images_dir, tag, scores, tmp_path, monkeypatch):
    monkeypatch.setenv("RAMFLOW_CACHE", str(tmp_path / "cache"))
    client = boto3.client("s3")
    for key in ("pictures/a.jpg", "pictures/deep/b.jpg", "pictures/odd", "picturesque.jpg", "pictures/notes.txt"):
        client.upload_file(str(images_dir / PICTURE), bucket, key)
    for file in (model / "model").iterdir():
        client.upload_file(str(file), bucket, f"runs/train/model/{file.name}")
    address = f"s3://{bucket}/pictures"
    [here] = scores(images_dir / PICTURE).values()
    assert scores(address) == {f"{address}/a.jpg": here, f"{address}/deep/b.jpg": here}
    assert list(scores(f"{address}/odd", f"{address}/a.jpg")) == [f"{address}/odd", f"{address}/a.jpg"]
    code, lines, errors = tag(f"{address}/b.jpg", f"s3://{bucket}/nothing", f"{address}/a.jpg", f"s3://{bucket}")
    assert code == 2 and len(lines) == 1
    assert errors[0].startswith(f"ramflow: {address}/b.jpg: there is no such object")
    assert "no image below it" in errors[1] and "is not s3://BUCKET/PREFIX" in errors[2] and len(errors) == 4
    assert tag(images_dir / PICTURE, "--top", 2) == tag(
        images_dir / PICTURE, "--top", 2, model=f"s3://{bucket}/runs/train/"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "1.5"], "--threshold 1.5: a number of 0 to 1 is expected"),
        (["--threshold", "nan"], "--threshold nan: a number of 0 to 1"),
        (["--top", "0"], "--top 0: a number of 1 or more"),
        (["--batch", "0"], "--batch 0"),
        (["--words", "cat"], "--words needs --clip"),
        (["--clip", "clip"], "--clip goes with --words"),
        (["--template", "a {}"], "--template goes with --words"),
        (["--words", "cat", "--clip", "clip", "--template", "a cat"], "one {} is expected"),
        (["--words", "cat", "--clip", "clip", "--tags", "tags.csv"], "--tags and --words exclude each other"),
        (["--tags", "nowhere.csv"], "no such tag list: nowhere.csv"),
        (["--model", "nowhere"], "--model nowhere: no trained model is there"),
    ],
)
def test_what_does_not_go_together_is_one_line(model, images_dir, words, message, capsys):
    from ramflow.cli import main

    given = ["tag", str(images_dir / PICTURE), "--model", str(model), *words]
    assert main(given) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and message in said.err


def test_the_model_folder_itself_and_a_damaged_one(model, images_dir, tag, tmp_path):
    code, _, [error] = tag(images_dir, model=model / "model")
    assert code == 2 and "is the model itself: give the folder above it" in error
    shutil.copytree(model, tmp_path / "train")
    weights = tmp_path / "train" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, [error] = tag(images_dir, model=tmp_path / "train")
    assert code == 2 and "is not a whole trained model" in error


def test_a_model_without_thresholds_or_chinese_names(model, images_dir, tag, tmp_path):
    shutil.copytree(model, tmp_path / "train")
    table(tmp_path / "train" / "model" / "tags.csv")
    code, _, [error] = tag(images_dir / PICTURE, model=tmp_path / "train")
    assert code == 2 and "has no thresholds: give --threshold" in error
    code, _, [error] = tag(images_dir / PICTURE, "--threshold", 0, "--both", model=tmp_path / "train")
    assert code == 2 and "has no Chinese names" in error
    assert tag(images_dir / PICTURE, "--threshold", 0, model=tmp_path / "train")[0] == 0
