"""The run that failed is told from one that did not, with everything its owner has or with one file of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramflow.cli import main
from tests.doctor.conftest import FULL, KEPT, annotations, ids, tag_list

PUBLIC = Path(__file__).parents[3] / "shared" / "reference" / "recognize-anything" / "ram_tag_list.txt"
CAUSES = ["encoder.never_loaded", "tags.reindexed", "batch.unlike"]


def causes(answer):
    return [finding.id for finding in answer.findings if finding.kind == "cause"]


@pytest.fixture
def lists(tmp_path):
    """The list as it was trained with, and the full list."""
    return tag_list(tmp_path / "tags.txt", KEPT), tag_list(tmp_path / "full.txt", FULL)


def test_all_three_are_named(look, failed, swin, lists, tmp_path):
    tags, full = lists
    reindexed = annotations(tmp_path / "train.json", KEPT, KEPT.index)
    answer = look(log=failed.console, checkpoint=failed.checkpoint, weights=swin, tags=tags, full_tags=full,
                  annotations=[str(reindexed)])  # fmt: skip
    assert causes(answer) == CAUSES
    assert all(finding.certainty == "certain" for finding in answer.findings[:3])
    encoder, tag, batch = answer.findings[:3]
    assert "0 of 20 matrices descend" in encoder.evidence[0] and "stage 2" in " ".join(encoder.evidence)
    assert "144 tags were dropped" in tag.title and "4441 names" in tag.evidence[0].replace(",", "")
    assert batch.title.startswith("Batch 26 a GPU, where the recipe has 52")
    assert ("release", "looks like a release of 2023-10-23 to 2024-04-13 (the encoder was never loaded)") in answer.seen


def test_the_healthy_run_has_nothing(look, healthy, swin, tmp_path):
    tags = tag_list(tmp_path / "tags.txt", FULL)
    labels = annotations(tmp_path / "train.json", FULL, FULL.index)
    answer = look(log=healthy.console, checkpoint=healthy.checkpoint, weights=swin, tags=tags,
                  full_tags=tags, annotations=[str(labels)])  # fmt: skip
    assert ids(answer) == []
    assert {untold.needs for untold in answer.untold} <= {"--embeddings"} | {
        untold.needs for untold in answer.untold if "spike" in untold.question
    }


@pytest.mark.parametrize("given", [("log",), ("console",), ("checkpoint",), ("weights",), ("checkpoint", "weights")])
def test_one_file_of_the_healthy_run_has_nothing(look, healthy, swin, given):
    files = {"log": {"log": healthy.log}, "console": {"log": healthy.console}, "weights": {"weights": swin},
             "checkpoint": {"checkpoint": healthy.checkpoint}}  # fmt: skip
    answer = look(**{key: value for name in given for key, value in files[name].items()})
    assert ids(answer) == []
    assert answer.seen


def test_what_one_file_of_the_failed_run_tells(look, failed):
    assert "batch.unlike" in ids(look(log=failed.console)) and "encoder.never_loaded" in ids(look(log=failed.console))
    alone = look(checkpoint=failed.checkpoint)
    assert causes(alone) == CAUSES
    assert [finding.certainty for finding in alone.findings] == ["likely", "likely", "certain"]
    assert any("which file the encoder started from" in untold.question for untold in alone.untold)
    means = look(log=failed.log)  # means of epochs do not imply a batch, and it says so
    assert causes(means) == []
    assert any("batch" in untold.question for untold in means.untold)


@pytest.mark.parametrize(("batch", "seed"), [(52, 2), (52, 3), (64, 4)])
def test_other_healthy_runs_have_nothing(look, small, swin, batch, seed):
    run = small(batch=batch, seed=seed)
    for log in (run.console, run.log):
        assert ids(look(log=log, checkpoint=run.checkpoint, weights=swin)) == []


def test_a_run_that_never_loaded_at_the_right_batch(look, small, swin):
    run = small(loaded=False, seed=5)
    assert causes(look(log=run.console, checkpoint=run.checkpoint, weights=swin)) == ["encoder.never_loaded"]


def test_a_loaded_run_at_batch_26(look, small, swin):
    run = small(batch=26, seed=6)
    assert causes(look(log=run.console, checkpoint=run.checkpoint, weights=swin)) == ["batch.unlike"]


def test_the_public_list_is_known(look, failed, tmp_path):
    if not PUBLIC.exists():
        pytest.skip("the public tag list is not here (../shared is absent)")
    names = PUBLIC.read_text(encoding="utf-8").split("\n")
    assert ids(look(tags=PUBLIC)) == []
    kept = [name for i, name in enumerate(names) if (i - 37) % 31 or i < 37]
    assert len(names) - len(kept) == 147
    (finding,) = look(tags=tag_list(tmp_path / "tags.txt", kept)).findings
    assert "147 tags were dropped from the list and the rest re-indexed" in finding.title
    assert f"the first is 37 ({names[38]}), there 38" in finding.evidence[1]


def test_the_command(failed, swin, capsys):
    assert (
        main(["doctor", "--log", str(failed.console), "--checkpoint", str(failed.checkpoint), "--weights", str(swin)])
        == 0
    )
    text = capsys.readouterr().out
    assert text.startswith("Found 3 causes")
    assert text.index("1. The encoder was never pretrained") < text.index("2. 144 tags") < text.index("3. Batch 26")
    assert max(map(len, text.splitlines())) <= 100
    assert main(["doctor", "--json", "--log", str(failed.console)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {f["id"] for f in content["findings"]} >= {"encoder.never_loaded", "batch.unlike"}
    assert content["untold"] and content["seen"]
    assert main(["doctor", "--enforce", "--log", str(failed.console)]) == 3


def test_nothing_found_says_what_would_tell(healthy, capsys):
    assert main(["doctor", "--log", str(healthy.log)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Nothing found wrong in what was given.")
    assert "Looked at" in text
    untold = " ".join(text[text.index("Cannot be told") :].split())
    options = ("--checkpoint, best with --weights", "--tags", "--annotations", "--embeddings", "--log with the console")
    for option in options:
        assert option in untold


def test_batch_26_is_the_recipe_of_fine_tuning(look, tmp_path):
    from tests.doctor.logs import console

    rows = [{"lr": 5e-6, "loss_tag": 446.0, "loss_dis": 0.2, "loss_alignment": 34.0}] * 12
    assert ids(look(log=console(tmp_path / "log.txt", rows, head=False))) == []
