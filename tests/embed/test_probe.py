"""The consistency checks, each against the fault that it is for."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.nearest import nearest_rows
from ramflow.embed.probe import probe_all, row_checks, spread_check
from ramflow.errors import UserError
from ramflow.settings import EmbedSettings

NAMES = [f"tag {number}" for number in range(20)]
TEXTS = [[f"{name}, seen {place}" for place in ("near", "far", "above")] for name in NAMES]
DRAW = torch.Generator().manual_seed(0)
VECTOR_OF = {text: normalize(torch.randn(16, generator=DRAW), dim=0) for own in TEXTS for text in own}


def stored(texts=TEXTS):
    embeddings = torch.stack([torch.stack([VECTOR_OF[text] for text in own]) for own in texts])
    return TagEmbeddings(embeddings, torch.ones(len(texts), 3, dtype=torch.bool), "sha256:0", {})


def encode(texts):
    return torch.stack([VECTOR_OF[text] for text in texts])


def probe(embeddings, names=NAMES, texts=TEXTS, **settings):
    checks, metrics = probe_all(embeddings, names, texts, encode, EmbedSettings(**settings))
    return {check.id: check for check in checks}, metrics


def test_rows_at_their_tags_pass():
    checks, metrics = probe(stored())
    assert all(check.passed for check in checks.values())
    assert metrics["identity_rate"] == 1.0
    assert metrics["min_probe_cosine"] == pytest.approx(1.0)


@pytest.mark.parametrize("shift", [1, 7, 19])
def test_rows_shifted_by_some_tags_are_caught(shift):
    embeddings = stored()
    shifted = TagEmbeddings(embeddings.embeddings.roll(shift, 0), embeddings.mask, "sha256:0", {})
    checks, metrics = probe(shifted)
    assert (checks["embed.probe_cosine"].count, checks["embed.identity"].count) == (20, 20)
    assert checks["embed.identity"].examples[0] == f"tag 0: nearest is tag {shift}"
    assert metrics["identity_rate"] == 0.0


def test_two_tags_changed_about_are_named():
    checks, metrics = probe(stored([TEXTS[1], TEXTS[0], *TEXTS[2:]]))
    assert checks["embed.identity"].examples == ["tag 0: nearest is tag 1", "tag 1: nearest is tag 0"]
    assert metrics["identity_rate"] == pytest.approx(0.9)


def test_averaged_descriptions_are_caught():
    embeddings = stored().embeddings
    averaged = normalize(embeddings.mean(dim=1, keepdim=True), dim=-1).expand_as(embeddings)
    checks, _ = probe(TagEmbeddings(averaged, stored().mask, "sha256:0", {}))
    assert checks["embed.probe_cosine"].count == 20


def test_another_encoders_rows_are_caught():
    other = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1))).Q
    checks, _ = probe(TagEmbeddings(stored().embeddings @ other, stored().mask, "sha256:0", {}))
    assert not checks["embed.probe_cosine"].passed


def test_rows_of_nan_or_zeros_are_caught():
    for value in (float("nan"), 0.0):
        rows = torch.full_like(stored().embeddings, value)
        checks, metrics = probe(TagEmbeddings(rows, stored().mask, "sha256:0", {}))
        assert checks["embed.probe_cosine"].count == 20
        assert metrics["min_probe_cosine"] <= 0.0


def test_equal_texts_of_two_tags_are_a_tie():
    texts = [TEXTS[1], *TEXTS[1:]]
    checks, _ = probe(stored(texts), texts=texts)
    assert checks["embed.identity"].passed


def test_a_masked_row_is_never_nearest_and_a_blank_first_text_is_passed_over():
    texts = [["", *TEXTS[0][1:]], ["", *TEXTS[1][1:]], *TEXTS[2:]]
    mask = torch.ones(20, 3, dtype=torch.bool)
    mask[0, 0] = mask[1, 0] = False
    embeddings = stored().embeddings.clone()
    embeddings[1, 0] = embeddings[0, 1]
    checks, _ = probe(TagEmbeddings(embeddings, mask, "sha256:0", {}), texts=texts)
    assert all(check.passed for check in checks.values())


def test_every_tag_is_probed_and_the_texts_take_turns():
    asked = []
    probe_all(stored(), NAMES, TEXTS, lambda texts: asked.extend(texts) or encode(texts), EmbedSettings())
    assert asked == [TEXTS[tag][tag % 3] for tag in range(20)]


def test_the_order_of_a_tags_rows_does_not_matter():
    turned = TagEmbeddings(stored().embeddings.flip(1), stored().mask, "sha256:0", {})
    checks, _ = probe(turned)
    assert all(check.passed for check in checks.values())


def test_rows_that_are_not_unit_are_compared_by_direction():
    checks, metrics = probe(TagEmbeddings(stored().embeddings * 7, stored().mask, "sha256:0", {}))
    assert all(check.passed for check in checks.values())
    assert metrics["min_probe_cosine"] == pytest.approx(1.0)


def test_a_share_of_wrong_tags_may_be_allowed():
    swapped = stored([TEXTS[1], TEXTS[0], *TEXTS[2:]])
    assert probe(swapped, min_identity=0.9)[0]["embed.identity"].passed
    assert not probe(swapped, min_identity=0.95)[0]["embed.identity"].passed


def test_another_width_is_refused():
    wide = TagEmbeddings(torch.ones(20, 3, 8), stored().mask, "", {})
    with pytest.raises(UserError, match="8 wide, the text encoder's vectors 16: they are of another encoder"):
        probe(wide)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 3e-3, 0.02, 0.3])
def test_the_window_finds_what_the_whole_product_finds(noise):
    """Near duplicates on purpose, fresh vectors at all distances from their rows."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 4, 16, generator=draw)
    rows[30:] = rows[:30] + 1e-2 * torch.randn(30, 4, 16, generator=draw)
    rows = normalize(rows, dim=-1)
    mask = torch.rand(60, 4, generator=draw) < 0.8
    mask[:, 0] = True
    fresh = normalize(rows[:, 0] + noise * torch.randn(60, 16, generator=draw), dim=-1)
    found = nearest_rows(TagEmbeddings(rows * mask[..., None], mask, "", {}), fresh)
    whole = (fresh @ rows.flatten(0, 1).T).view(60, 60, 4).masked_fill(~mask, -1.0).amax(dim=2)
    assert torch.allclose(found.own, whole.diagonal(), atol=1e-6)
    assert torch.allclose(found.best, whole.amax(dim=1), atol=1e-6)
    assert (whole[torch.arange(60), found.tag] >= whole.amax(dim=1) - 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_that_are_not_sound_are_counted(dtype):
    rows = normalize(torch.randn(100, 64, generator=torch.Generator().manual_seed(0)), dim=1).to(dtype)
    assert all(check.passed for check in row_checks("tags", rows))
    rows[3], rows[5, 0], rows[7] = 0, float("nan"), 2 * rows[7]
    finite, unit = row_checks("tags", rows)
    assert (finite.id, finite.count, finite.examples) == ("embed.tags_finite", 1, ["row 5"])
    assert (unit.id, unit.count, unit.examples) == ("embed.tags_unit", 2, ["row 3", "row 7"])


def test_the_same_vector_for_every_text_is_caught():
    one = normalize(torch.ones(10, 4), dim=1)
    assert not spread_check(one).passed
    assert not spread_check(torch.full((10, 4), float("nan"))).passed
    assert spread_check(stored().embeddings.flatten(0, 1)).passed
