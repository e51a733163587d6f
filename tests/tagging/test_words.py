"""The open set: words that the model was never told, through the text encoder that made its tags."""

from __future__ import annotations

import json
import statistics

import pytest

from ramflow.tags import TagTable
from tests.conftest import TAGS
from tests.embed.conftest import write_clip
from tests.tagging.conftest import THRESHOLDS

PICTURE = "shapes/square_blue_1.jpg"


@pytest.fixture
def words(images_dir, tiny_clip, scores):
    """``words(text, ...)``: the score of every word, of one picture."""
    return lambda text, *more: scores(images_dir / PICTURE, "--words", text, "--clip", tiny_clip, *more)[
        str(images_dir / PICTURE)
    ]


def test_a_tags_name_as_a_word_has_the_tags_score(images_dir, scores, words):
    own = scores(images_dir / PICTURE)[str(images_dir / PICTURE)]
    found = words("unicorn, red,red,a big horse,")
    assert set(found) == {"unicorn", "red", "a big horse"}
    assert (found["unicorn"], found["red"]) == pytest.approx((own["unicorn"], own["red"]), abs=2e-6)
    assert len(set(found.values())) == 3


def test_every_form_of_a_file(words, tmp_path):
    plain = words("horse,cow")
    (tmp_path / "words.txt").write_text("horse\r\n\n cow \nhorse\n")
    assert words(tmp_path / "words.txt") == plain
    (tmp_path / "words.json").write_text(json.dumps([{"horse": "a photo of a horse."}, {"cow": ["a photo of a cow."]}]))
    assert words(tmp_path / "words.json") == plain
    (tmp_path / "lines").write_text("horse\ta photo of a horse.\ncow\ta photo of a cow.\n")
    assert words(tmp_path / "lines") == plain
    TagTable(["horse", "cow", "gone"], status=["", "", "dropped"]).write(tmp_path / "tags.csv")
    assert words(tmp_path / "tags.csv") == pytest.approx(plain, abs=2e-6)


def test_templates_and_descriptions_add_up(words, tmp_path):
    (tmp_path / "words.json").write_text('{"horse": ["it has a mane", "it eats hay"], "cow": "it gives milk"}')
    described = words(tmp_path / "words.json")
    both = words(tmp_path / "words.json", "--template", "a photo of a {}.")
    alone = words("horse,cow", "--template", "a photo of a {}.")
    assert len({tuple(some.values()) for some in (described, both, alone)}) == 3
    assert alone == words("horse,cow")
    assert words("horse", "--template", "one {}", "--template", "two {}s") != words("horse", "--template", "one {}")


def test_the_threshold_of_words_is_the_median_of_the_models(images_dir, tiny_clip, tag, tmp_path):
    more = ("--words", "horse,cow", "--clip", tiny_clip, "--top", 2, "--json")

    def thresholds(*options):
        return {said["threshold"] for said in json.loads(tag(images_dir / PICTURE, *more, *options)[1][0])["tags"]}

    assert thresholds() == {statistics.median(THRESHOLDS)}
    assert thresholds("--threshold", 0) == {0}
    TagTable(["horse", "cow"], thresholds=[0.25, 0.5]).write(tmp_path / "tags.csv")
    more = ("--words", tmp_path / "tags.csv", *more[2:])
    assert thresholds() == {0.25, 0.5}


def test_another_text_encoder_is_refused(images_dir, tag, tmp_path):
    other = write_clip(tmp_path / "clip", seed=7)
    code, lines, [error] = tag(images_dir / PICTURE, "--words", "horse", "--clip", other)
    assert (code, lines) == (2, [])
    assert "is another text encoder than that of the model's tag embeddings (weights sha256:" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "there is no word in it"),
        ("nowhere.txt", "no such file"),
        ("empty.txt", "there is no word in it"),
        ("latin.txt", "is not UTF-8"),
        ("blank.json", "has no description for 1 of 1 tags: 'horse'"),
        ("broken.json", "is not JSON"),
        (".", "no such file"),
    ],
)
def test_bad_words_are_one_line(images_dir, tiny_clip, tag, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "blank.json").write_text('{"horse": [" "]}')
    (tmp_path / "broken.json").write_text('{"horse"')
    code, lines, errors = tag(images_dir / PICTURE, "--words", text, "--clip", tiny_clip)
    assert (code, lines, len(errors)) == (2, [], 1) and message in errors[0]


def test_words_that_are_too_long_are_cut_and_that_is_said(images_dir, tiny_clip, tag):
    code, _, errors = tag(images_dir / PICTURE, "--words", "x" * 60, "--clip", tiny_clip)
    assert code == 0 and errors == ["tag: 1 of 1 texts are longer than the 48 tokens that the encoder reads: cut"]


def test_chinese_names_of_words_need_a_list_that_has_them(images_dir, tiny_clip, tag, tmp_path):
    code, _, [error] = tag(images_dir / PICTURE, "--words", ",".join(TAGS), "--clip", tiny_clip, "--chinese")
    assert code == 2 and "has no Chinese names" in error
    TagTable(["horse"], chinese=["马"]).write(tmp_path / "tags.csv")
    more = ("--words", tmp_path / "tags.csv", "--clip", tiny_clip, "--top", 1, "--both")
    assert "horse 马" in tag(images_dir / PICTURE, *more)[1][0]
