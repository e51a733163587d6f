"""Tag list, annotations and embeddings against one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from tests.doctor.conftest import DROPPED, FULL, KEPT, annotations, ids, tag_list

WIDTH = 16
SAMPLE = Path(__file__).parents[2] / "sample"


@pytest.fixture
def kept(tmp_path):
    return tag_list(tmp_path / "tags.txt", KEPT)


@pytest.fixture
def full(tmp_path):
    return tag_list(tmp_path / "full.txt", FULL)


def matrix(tags, per_tag=51, seed=0):
    rows = torch.randn(tags * per_tag, WIDTH, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows, dim=-1)


def saved(path, rows):
    torch.save(rows, path)
    return path


# --- the list


def test_a_re_indexed_list(look, kept, full):
    (finding,) = look(tags=kept, full_tags=full).findings
    assert finding.id == "tags.reindexed" and "144 tags were dropped" in finding.title
    assert "37, 68, 99" in finding.evidence[0]
    assert f"the first is 37 ({FULL[38]}), there 38" in finding.evidence[1]


def test_another_order(look, full, tmp_path):
    shuffled = tag_list(tmp_path / "tags.txt", FULL[::-1])
    (finding,) = look(tags=shuffled, full_tags=full).findings
    assert finding.title == "The tag list was put in another order"


def test_names_added_at_the_end_move_nothing(look, full, tmp_path):
    longer = tag_list(tmp_path / "tags.txt", [*FULL, "ours"])
    assert ids(look(tags=longer, full_tags=full)) == []


def test_tags_dropped_at_the_end_move_nothing(look, full, tmp_path):
    assert ids(look(tags=tag_list(tmp_path / "tags.txt", FULL[:-9]), full_tags=full)) == []


def test_a_name_on_two_lines(look, full, tmp_path):
    twice = tag_list(tmp_path / "tags.txt", [*FULL, FULL[7]])
    (finding,) = look(tags=twice, full_tags=full).findings
    assert finding.id == "tags.duplicates" and finding.kind == "note"
    assert f"ids of {FULL[7]!r}: 7, {len(FULL)}" in finding.evidence[0]


def test_a_list_of_ones_own(look, kept):
    answer = look(tags=kept)  # beside the public list
    assert ids(answer) == []
    assert any("--full-tags" in untold.needs for untold in answer.untold)


def test_the_sample_has_its_own_list(look):
    """150 common words, 88 of which the public list has too, and annotations in its own ids."""
    files = sorted(map(str, (SAMPLE / "annotations").glob("*.json")))
    assert files
    answer = look(tags=SAMPLE / "tags.txt", annotations=files)
    assert ids(answer) == ["tags.never_used"]


def test_model_and_list_disagree(look, full, failed):
    assert "tags.disagree" in ids(look(tags=full, full_tags=full, checkpoint=failed.checkpoint))


# --- annotations


def old_ids(name):
    return FULL.index(name)


def test_annotations_that_follow_the_list(look, kept, full, tmp_path):
    labels = annotations(tmp_path / "train.json", KEPT, KEPT.index)
    answer = look(tags=kept, full_tags=full, annotations=[str(labels)])
    assert ids(answer) == ["tags.reindexed"]
    assert any("name of the image's tag in 73% of 737 labels" in text for _, text in answer.seen)


def test_annotations_with_the_old_ids(look, kept, full, tmp_path):
    labels = annotations(tmp_path / "train.json", KEPT, old_ids, images=3000)
    answer = look(tags=kept, full_tags=full, annotations=[str(labels)])
    assert ids(answer)[:3] == ["annotations.old_ids", "annotations.outside", "tags.reindexed"]
    assert "ids outside 0 to 4,440" in answer.findings[1].evidence[0]


def test_old_ids_that_all_fit(look, kept, full, tmp_path):
    """Where what did not fit was thrown away, only the captions tell."""
    path = annotations(tmp_path / "train.json", KEPT, old_ids)
    records = json.loads(path.read_text())
    for record in records:
        record["union_label_id"] = [i for i in record["union_label_id"] if i < len(KEPT)]
    path.write_text(json.dumps(records))
    answer = look(tags=kept, full_tags=full, annotations=[f"train={path}"])
    assert ids(answer)[:2] == ["annotations.old_ids", "tags.reindexed"]
    assert "from id 37 on" in answer.findings[0].evidence[1]


def test_annotations_of_another_list(look, full, tmp_path):
    labels = annotations(tmp_path / "train.json", FULL, lambda name: (FULL.index(name) * 7 + 13) % len(FULL))
    assert "annotations.foreign" in ids(look(tags=full, full_tags=full, annotations=[str(labels)]))


def test_tags_without_an_image(look, full, tmp_path):
    labels = annotations(tmp_path / "train.json", KEPT, old_ids)
    (finding,) = look(tags=full, full_tags=full, annotations=[str(labels)]).findings
    assert finding.id == "tags.never_used" and finding.kind == "note"
    assert finding.title == "144 of 4,585 tags have no image"
    assert ", ".join(map(str, DROPPED[:10])) in finding.evidence[0]


def test_annotations_alone(look, tmp_path):
    labels = annotations(tmp_path / "train.json", FULL, FULL.index)
    answer = look(annotations=[str(labels)])
    assert ids(answer) == []
    assert any("1,200 images" in text and "11.0 tags an image" in text for _, text in answer.seen)


def test_large_files_are_counted_in_processes_alike(look, full, tmp_path, monkeypatch):
    from ramflow.doctor import annotation_files

    labels = [str(annotations(tmp_path / f"{n}.json", FULL, FULL.index)) for n in range(2)]
    alone = look(tags=full, full_tags=full, annotations=labels)
    monkeypatch.setattr(annotation_files, "SMALL", 0)
    assert look(tags=full, full_tags=full, annotations=labels) == alone


# --- embeddings


def test_embeddings_that_fit(look, full, tmp_path):
    answer = look(tags=full, full_tags=full, embeddings=saved(tmp_path / "e.pth", matrix(4585)))
    assert ids(answer) == []
    assert any("ramflow embeddings check" in untold.needs for untold in answer.untold)


@pytest.mark.parametrize(
    ("rows", "found"),
    [(matrix(4585)[:-3], "embeddings.uneven"), (matrix(4585, 1), "embeddings.averaged"),
     (3 * matrix(4585), "embeddings.not_unit"),
     (torch.cat([torch.zeros(51, WIDTH), matrix(4584)]), "embeddings.empty")],
)  # fmt: skip
def test_faulty_embeddings(look, full, tmp_path, rows, found):
    assert ids(look(tags=full, full_tags=full, embeddings=saved(tmp_path / "e.pth", rows))) == [found]


def test_ours(look, tmp_path):
    folder = tmp_path / "embed"
    folder.mkdir()
    save_file(
        {"embeddings": matrix(6, 4).view(6, 4, WIDTH), "mask": torch.ones(6, 4, dtype=torch.bool)},
        folder / "tags.safetensors",
    )
    answer = look(embeddings=folder)
    assert ids(answer) == [] and any("6 tags" in text for _, text in answer.seen)


@pytest.fixture
def holding(small, tmp_path):
    """``holding(rows)``: the small run's checkpoint with these rows as its tag embeddings."""

    def write(rows):
        content = torch.load(small().checkpoint, weights_only=True)
        content["model"]["label_embed"] = rows
        return saved(tmp_path / "checkpoint.pth", content)

    return write


def chosen(rows, tags):
    return rows.view(-1, 51, WIDTH)[tags].flatten(0, 1)


def test_the_checkpoint_holds_the_file(look, holding, tmp_path):
    rows = matrix(459)
    answer = look(checkpoint=holding(rows.clone()), embeddings=saved(tmp_path / "e.pth", rows.half()))
    assert ids(answer) == []
    assert ("embeddings", "the checkpoint holds these rows, tag by tag") in answer.seen


def test_rows_shifted_by_a_tag(look, holding, tmp_path):
    rows = matrix(459)
    shifted = chosen(rows, [*range(100), *range(101, 459), 100])
    (finding,) = look(checkpoint=holding(shifted), embeddings=saved(tmp_path / "e.pth", rows)).findings
    assert finding.id == "embeddings.moved" and finding.title.startswith("From tag 100 on")


def test_rows_moved_as_the_list_was(look, holding, tmp_path):
    full = tag_list(tmp_path / "full.txt", FULL[:459])
    left = [i for i in range(459) if i % 31 != 7]
    tags = tag_list(tmp_path / "tags.txt", [FULL[i] for i in left])
    rows = matrix(459)
    given = {"tags": tags, "full_tags": full, "embeddings": saved(tmp_path / "e.pth", rows)}
    answer = look(checkpoint=holding(chosen(rows, left)), **given)
    assert any("moved as the tag list was" in text for _, text in answer.seen)
    assert "embeddings.moved" not in ids(answer)
    answer = look(checkpoint=holding(chosen(rows, range(len(left)))), **given)  # the first rows, whatever the list says
    assert "embeddings.moved" in ids(answer)


def test_rows_with_tags_left_out_and_no_list(look, holding, tmp_path):
    rows = matrix(459)
    left = [i for i in range(459) if i % 31 != 7]
    answer = look(checkpoint=holding(chosen(rows, left)), embeddings=saved(tmp_path / "e.pth", rows))
    assert "embeddings.moved" not in ids(answer)
    assert any("with 15 tags left out, from tag 7 on" in text for _, text in answer.seen)


def test_rows_of_another_encoder(look, holding, tmp_path):
    answer = look(checkpoint=holding(matrix(459, seed=5)), embeddings=saved(tmp_path / "e.pth", matrix(459)))
    (finding,) = answer.findings
    assert finding.id == "embeddings.differ" and "0 of 459 tags" in finding.evidence[0] and len(finding.evidence) > 1
