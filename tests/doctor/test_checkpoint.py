"""Faults planted in the checkpoint of a healthy run; the other checks stay silent."""

from __future__ import annotations

import math

import pytest
import torch

from tests.doctor.conftest import ids, tag_list


@pytest.fixture
def change(small, tmp_path):
    """``change(function)``: the healthy checkpoint after ``function(content)``."""

    def run(function):
        content = torch.load(small().checkpoint, weights_only=True)
        function(content)
        path = tmp_path / "checkpoint_01.pth"
        torch.save(content, path)
        return path

    return run


def test_unchanged(look, change, swin):
    assert ids(look(checkpoint=change(lambda content: None), weights=swin)) == []


def test_only_a_part_was_loaded(look, change, swin):
    def forget_the_first_stage(content):
        torch.manual_seed(7)
        for key, value in content["model"].items():
            if key.startswith("visual_encoder.layers.0.blocks") and value.ndim == 2:
                content["model"][key] = 0.02 * torch.randn_like(value)

    (finding,) = look(checkpoint=change(forget_the_first_stage), weights=swin).findings
    assert finding.id == "encoder.partly_loaded"
    assert "not stage 1" in finding.title and "stage 2: 11 of 11" in " ".join(finding.evidence)


def test_the_weights_file_is_never_trained(look, base, tmp_path):
    from tests.doctor.runs import ENCODER, OPTIONS, Swin, save_swin

    torch.manual_seed(3)
    (finding,) = look(weights=save_swin(Swin(ENCODER, OPTIONS), tmp_path / "swin.pth")).findings
    assert finding.id == "weights.random"


def test_the_weights_file_holds_nan(look, swin, tmp_path):
    content = torch.load(swin, weights_only=True)
    content["model"]["patch_embed.proj.bias"][3] = math.nan
    torch.save(content, tmp_path / "swin.pth")
    (finding,) = look(weights=tmp_path / "swin.pth").findings
    assert finding.id == "weights.not_finite" and "patch_embed.proj.bias" in " ".join(finding.evidence)


def test_another_weights_file(look, small, tmp_path):
    """A run from other pretrained weights: it is said that this is the other reading."""
    from tests.doctor.runs import pretrained, save_swin

    run = small()
    other = save_swin(pretrained(seed=11), tmp_path / "other.pth")
    (finding,) = look(checkpoint=run.checkpoint, weights=other, log=run.console).findings
    assert finding.id == "encoder.never_loaded" and finding.certainty == "likely"
    assert "If the run meant another weights file" in finding.advice


def test_a_frozen_encoder(look, change, base, swin):
    def freeze(content):
        from tests.doctor.runs import microsoft_name

        for key, value in base.swin.state_dict().items():
            content["model"]["visual_encoder." + microsoft_name(key)] = value

    answer = look(checkpoint=change(freeze), weights=swin)
    assert ids(answer) == []
    assert any("to the bit" in text for _, text in answer.seen)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite(look, change, value):
    def spoil(content):
        content["model"]["fc.bias"].fill_(value)

    (finding,) = look(checkpoint=change(spoil)).findings
    assert finding.id == "checkpoint.not_finite" and "fc.bias" in finding.evidence[0]


@pytest.mark.parametrize("rows", [slice(None), slice(5, 60)])
def test_empty_tag_embeddings(look, change, rows):
    def empty(content):
        content["model"]["label_embed"][rows] = 0

    assert ids(look(checkpoint=change(empty))) == ["embeddings.empty"]


def test_constant_tag_embeddings(look, change):
    def fill(content):
        content["model"]["label_embed"][:] = 0.25

    assert ids(look(checkpoint=change(fill))) == ["embeddings.empty"]


def test_own_numbers_of_descriptions_are_no_fault(look, change, tmp_path):
    def own(content):
        content["model"]["label_embed"] = content["model"]["label_embed"].view(459, 51, -1)[:, ::7].flatten(0, 1)

    names = tag_list(tmp_path / "tags.txt", [f"tag {number}" for number in range(459)])
    answer = look(checkpoint=change(own), tags=names)
    assert ids(answer) == [], answer.findings
    assert any("3,672 rows of tag embeddings, 459 tags" in text for _, text in answer.seen)


def test_averaged_descriptions(look, change):
    def average(content):
        rows = content["model"]["label_embed"].view(459, 51, -1).mean(1)
        content["model"]["label_embed"] = rows

    # 459 rows are 9 times 51: the tag list says that there are 459 tags
    def repeat(content):
        average(content)
        content["model"]["label_embed"] = content["model"]["label_embed"].repeat_interleave(51, 0)

    assert ids(look(checkpoint=change(repeat))) == ["embeddings.averaged"]

    def one_row(content):
        average(content)
        content["model"]["label_embed"] = content["model"]["label_embed"][:450]

    answer = look(checkpoint=change(one_row))
    assert ids(answer) == ["embeddings.averaged"]
    assert (
        "release",
        "looks like a release of 2023-10-23 to 2024-06-12 (descriptions averaged to one row a tag)",
    ) in answer.seen


def test_the_window_of_another_size(look, change):
    def widen(content):
        content["config"]["image_size"] = 224  # its windows are of 4

    answer = look(checkpoint=change(widen))
    assert ids(answer) == ["encoder.window"]


def test_the_scale(look, change):
    def run_away(content):
        content["model"]["reweight_scale"].fill_(5.2)

    (finding,) = look(checkpoint=change(run_away)).findings
    assert finding.id == "scale.runaway" and "5.20" in finding.evidence[0]


def test_the_batch_of_fine_tuning_is_the_recipes(look, change):
    def tune(content):
        content["config"] |= {"image_size": 384, "batch_size": 26}
        for key in [key for key in content["model"] if "relative_position_bias_table" in key]:
            content["model"][key] = torch.randn(23 * 23, content["model"][key].shape[1])

    assert ids(look(checkpoint=change(tune))) == []
