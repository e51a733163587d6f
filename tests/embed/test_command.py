"""``ramflow embeddings``: import, export and check, as typed."""

from __future__ import annotations

import json
import random

import pytest
import torch

from ramflow.cli import main
from ramflow.embed.files import read_embeddings, write_upstream
from ramflow.tags import read_tags
from tests.embed.conftest import write_clip
from tests.embed.planted import CLIP, DESCRIPTIONS, TAGS, averaged, chosen, encode, plain, sample

WITH_CLIP = ("--clip", str(CLIP), "--descriptions", str(DESCRIPTIONS))


def with_another(vectors):
    """One tag more, that no list has."""
    row = encode(["a wheelbarrow full of snow"]).expand(1, vectors.embeddings.shape[1], -1)
    return plain(torch.cat([vectors.embeddings, row]), torch.cat([vectors.mask, torch.ones_like(vectors.mask[:1])]))


def embeddings(*arguments):
    """The exit code of ``ramflow embeddings ...``."""
    try:
        return main(["embeddings", *map(str, arguments)]) or 0
    except SystemExit as stopped:
        return stopped.code or 0


@pytest.fixture
def own(tmp_path):
    """The sample's embeddings in ramflow's layout."""
    (tmp_path / "own").mkdir()
    sample().write(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def public_file(tmp_path):
    """``public_file(vectors)``: a file in the public form."""

    def write(vectors):
        write_upstream(vectors, tmp_path / "tags.pth", repeat=True)
        return tmp_path / "tags.pth"

    return write


def test_import_makes_the_own_layout_with_the_lists_digest(public_file, tmp_path, capsys):
    assert embeddings("import", public_file(sample()), "--tags", TAGS, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "150 tags, 8 rows each, 128 wide" in said
    assert "ramflow embeddings check" in said and "warning" not in said
    read = read_embeddings(tmp_path / "out", 150)
    assert read.tag_digest == read_tags(TAGS).digest
    assert torch.equal(read.embeddings[:, 0], sample().embeddings[:, 0])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tags.safetensors"]


def test_import_says_what_is_odd_and_is_the_same_bytes_each_time(public_file, tmp_path, capsys):
    file = public_file(averaged(sample()))
    for name in ("one", "two"):
        assert embeddings("import", file, "--tags", TAGS, "--out", tmp_path / name) == 0
    assert "warning: 150 of 150 tags have one row" in capsys.readouterr().err
    one, two = ((tmp_path / name / "tags.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_import_of_another_lists_file_is_refused(own, tmp_path, capsys):
    turned = tmp_path / "tags.txt"
    turned.write_text("\n".join(reversed(read_tags(TAGS).names)))
    assert embeddings("import", own, "--tags", turned, "--out", tmp_path / "out") == 2
    assert "was made for another tag list than" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_is_what_import_reads(own, tmp_path, capsys):
    assert embeddings("export", own, "--out", tmp_path / "tags.pth") == 2
    assert "--repeat" in capsys.readouterr().err
    assert embeddings("export", own, "--out", tmp_path / "tags.pth", "--repeat") == 0
    assert "8 rows for each of 150 tags; 485 of them are repeated" in capsys.readouterr().err
    assert torch.load(tmp_path / "tags.pth", weights_only=True).shape == (1200, 128)


@pytest.mark.parametrize("more", [(), WITH_CLIP[:2], WITH_CLIP])
def test_check_of_a_clean_file_says_yes(own, public_file, capsys, more):
    for file in (own, public_file(sample())):
        assert embeddings("check", file, "--tags", TAGS, "--enforce", *more) == 0
        said = capsys.readouterr().out
        assert "what was found" not in said
        assert ("answer: yes" if more else "answer: sound rows, but not proved") in said


def test_check_names_the_tags_that_were_dropped(public_file, tmp_path, capsys):
    """A list of 145 tags against the embeddings of all 150: the re-indexed file of the story."""
    gone = [3, 45, 81, 91, 103]
    kept = [tag for tag in range(150) if tag not in gone]
    file = public_file(averaged(chosen(sample(), kept)))
    names = read_tags(TAGS).names
    fewer = tmp_path / "fewer.txt"
    fewer.write_text("\n".join(names[tag] for tag in kept))
    assert embeddings("check", file, "--tags", fewer, *WITH_CLIP, "--enforce") == 3
    said = capsys.readouterr()
    assert "averaged" in said.out and "reindexed" not in said.out
    turned = tmp_path / "first.txt"
    turned.write_text("\n".join(names[:145]))
    assert embeddings("check", file, "--tags", turned, *WITH_CLIP, "--enforce") == 3
    said = capsys.readouterr()
    assert f"first dropped: {', '.join(map(str, gone))}" in said.out
    assert f"{names[3]} (3)" in said.out
    assert "answer: NO" in said.out
    assert said.err.strip().splitlines()[-1].startswith("ramflow: embeddings check says no: embed.")


def test_check_against_a_reference_in_json(own, public_file, capsys):
    order = list(range(150))
    order[8], order[20] = 20, 8
    file = public_file(chosen(sample(), order))
    assert embeddings("check", file, "--tags", TAGS, "--reference", own, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["passed"], content["tags"], content["rows"], content["width"]) == (False, 150, [8, 8], 128)
    assert content["figures"]["reference"]["identity"] == pytest.approx(148 / 150, abs=1e-5)
    assert [(d["kind"], d["tags"]) for d in content["diagnoses"]] == [("permuted", [8, 20])]
    failed = {c["id"] for c in content["checks"] if not c["passed"] and c["severity"] == "error"}
    assert failed == {"embed.reference_cosine", "embed.reference_identity", "embed.reference_diagnosis"}


def test_a_reference_of_another_list_is_compared_by_name(own, public_file, tmp_path, capsys):
    names = read_tags(TAGS).names
    order = random.Random(0).sample(range(150), 140)
    mine = tmp_path / "mine.txt"
    mine.write_text("\n".join([*(names[tag] for tag in order), "unheard of"]))
    file = public_file(with_another(chosen(sample(), order)))
    arguments = ("check", file, "--tags", mine, "--reference", own, "--reference-tags", TAGS)
    assert embeddings(*arguments, "--enforce") == 0
    said = capsys.readouterr().out
    assert "1 of 141 tags are not in the reference's list and were not compared" in said
    assert "answer: yes" in said
    moved = public_file(with_another(chosen(sample(), [*order[1:], order[0]])))
    assert embeddings("check", moved, *arguments[2:], "--enforce") == 3
    assert "shifted by +1" in capsys.readouterr().out


def test_a_file_of_another_list_by_its_digest_is_a_no(own, tmp_path, capsys):
    turned = tmp_path / "tags.txt"
    turned.write_text("\n".join(reversed(read_tags(TAGS).names)))
    assert embeddings("check", own, "--tags", turned, "--enforce") == 3
    assert "embed.tag_list: the file was made for another tag list" in capsys.readouterr().out


def test_the_vectors_of_another_clip_are_told(own, tmp_path, capsys):
    assert embeddings("check", own, "--tags", TAGS, "--clip", write_clip(tmp_path / "clip"), "--enforce") == 3
    assert "embed.width: the rows are 128 wide, the vectors of" in capsys.readouterr().out


def test_limits_can_be_set(own, public_file, capsys):
    order = list(range(150))
    order[8], order[20] = 20, 8
    arguments = ("check", public_file(chosen(sample(), order)), "--tags", TAGS, "--reference", own, "--json")
    assert embeddings(*arguments, "--set", "embed.min_identity=0.9") == 0
    checks = {c["id"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["embed.reference_identity"]["passed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--descriptions", DESCRIPTIONS), "--descriptions goes with --clip"),
        (("--reference-tags", TAGS), "--reference-tags goes with --reference"),
        (("--reference", "nowhere.pth"), "no such file of embeddings: nowhere.pth"),
        (("--clip", "nowhere"), "no such file or directory: nowhere"),
    ],
)
def test_wrong_options_are_one_line(own, options, message, capsys):
    assert embeddings("check", own, "--tags", TAGS, *options) == 2
    assert capsys.readouterr().err.strip().startswith(f"ramflow: {message}")


def test_help_of_every_verb(capsys):
    for verb in ("import", "export", "check"):
        assert embeddings(verb, "--help") == 0
        assert "--out" in capsys.readouterr().out or verb == "check"
