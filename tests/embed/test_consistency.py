"""Figures and gates of a comparison: what they are worth, and that clean files of every kind pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ramflow.embed.consistency import compare
from ramflow.embed.gates import defect_check, one_row_check, reference_checks
from ramflow.embed.rows import agree
from ramflow.settings import EmbedSettings
from tests.embed.planted import averaged, changed, chosen, encode, faults, kinds, plain, public, sample


def gates(comparison, **settings):
    return {
        check.id.removeprefix("embed.reference_"): check
        for check in reference_checks(comparison, EmbedSettings(**settings))
    }


def test_a_file_agrees_with_itself():
    comparison = compare(sample(), sample())
    assert kinds(comparison) == []
    assert comparison.figures() == pytest.approx(dict.fromkeys(comparison.figures(), 1.0), abs=1e-5)
    assert comparison.identity == 1.0
    assert set(gates(comparison)) == {"cosine", "identity", "correlation", "neighbours", "diagnosis"}
    assert all(check.passed for check in gates(comparison).values())


def test_an_encoding_in_other_batches_agrees():
    texts = [f"a photo of a {name}." for name in ("cat", "dog", "tree", "red flag", "map of the world", "car") * 20]
    one = encode(texts)
    other = torch.cat([encode([text]) for text in texts])
    comparison = compare(plain(other[:, None]), plain(one[:, None]))
    assert faults(comparison) == faults(compare(plain(one[:, None]), plain(one[:, None])))
    assert float(comparison.cosines.min()) > 0.99999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_either_side_passes_the_gates(dtype):
    half = changed(sample(), sample().embeddings.to(dtype))
    for comparison in (compare(half, sample()), compare(sample(), half), compare(half, half)):
        assert all(check.passed for check in gates(comparison).values()), comparison.diagnoses
        assert faults(comparison) == []


def test_rows_of_a_tag_may_stand_in_any_order():
    rows = public("a photo of a {}.", "clip art of {}.", "a drawing of {}.").embeddings[:400]
    comparison = compare(plain(rows[:, [2, 0, 1]]), plain(rows))
    assert kinds(comparison) == []
    assert all(check.passed for check in gates(comparison).values())


def test_a_reference_of_one_text_a_tag_is_enough():
    first = plain(sample().embeddings[:, :1])
    comparison = compare(sample(), first)
    assert kinds(comparison) == []
    assert all(check.passed for check in gates(comparison).values())
    moved = compare(chosen(sample(), [*range(1, 150), 0]), first)
    assert faults(moved) == ["shifted"]


def test_the_public_list_passes_in_one_row_and_in_three():
    one, three = public("a photo of a {}."), public("a photo of a {}.", "clip art of {}.", "a drawing of {}.")
    for comparison in (compare(one, one), compare(three, one)):
        assert kinds(comparison) == []
        assert all(check.passed for check in gates(comparison).values())


def test_faults_that_the_reference_has_as_well_are_what_is_meant():
    rows = sample().embeddings.clone()
    rows[3] = 0.0
    both = changed(sample(), rows)
    assert kinds(compare(both, both)) == []
    assert faults(compare(both, sample())) == ["faulty_rows"]


def test_two_changed_tags_fail_by_cosine_and_identity_and_are_named():
    order = list(range(150))
    order[5], order[40] = 40, 5
    comparison = compare(chosen(sample(), order), sample())
    failed = gates(comparison)
    assert (failed["cosine"].count, failed["identity"].count, failed["identity"].limit) == (2, 2, 0)
    assert failed["identity"].examples == ["tag 5: nearest is tag 40", "tag 40: nearest is tag 5"]
    assert failed["correlation"].passed and failed["neighbours"].passed
    assert failed["diagnosis"].examples[0].startswith("permuted: 2 tags")
    assert gates(comparison, min_identity=0.98)["identity"].passed


def test_a_list_in_another_order_fails_every_gate():
    failed = gates(compare(chosen(sample(), list(range(149, -1, -1))), sample()))
    assert not any(check.passed for check in failed.values())


def test_another_width_is_compared_by_similarities_alone():
    narrow = changed(sample(), sample().embeddings @ torch.linalg.qr(torch.randn(128, 128)).Q)
    wide = plain(torch.cat([narrow.embeddings, torch.zeros(150, 8, 4)], dim=2), sample().mask)
    comparison = compare(wide, sample())
    assert (comparison.cosines, comparison.strangers, comparison.identity) == (None, None, None)
    assert (comparison.correlation, comparison.neighbours) == pytest.approx((1.0, 1.0), abs=1e-4)
    assert set(gates(comparison)) == {"correlation", "neighbours", "diagnosis"}
    assert all(check.passed for check in gates(comparison).values())


def test_the_same_width_of_another_encoder_is_a_fault():
    turned = changed(sample(), sample().embeddings @ torch.linalg.qr(torch.randn(128, 128)).Q)
    failed = {id for id, check in gates(compare(turned, sample())).items() if not check.passed}
    assert failed == {"cosine", "identity", "diagnosis"}


def test_numbers_of_tags_may_differ():
    comparison = compare(chosen(sample(), list(range(100))), sample())
    assert (comparison.tags, comparison.reference_tags, comparison.shared) == (100, 150, 100)
    assert comparison.identity == 1.0


@pytest.mark.parametrize("tags", [1, 2, 3, 6])
def test_a_handful_of_tags_is_no_trouble(tags):
    few = chosen(sample(), list(range(10, 10 + tags)))
    assert kinds(compare(few, few)) == []


def test_a_tag_that_the_reference_lacks_is_not_judged():
    mask = sample().mask.clone()
    mask[[4, 9]] = False
    comparison = compare(sample(), plain(sample().embeddings * mask[..., None], mask))
    assert faults(comparison) == []
    assert comparison.cosines[[4, 9]].isnan().all()
    assert all(check.passed for check in gates(comparison).values())


def test_a_tag_that_the_file_lacks_is_a_fault():
    mask = sample().mask.clone()
    mask[4] = False
    comparison = compare(plain(sample().embeddings * mask[..., None], mask), sample())
    assert gates(comparison)["cosine"].examples == ["tag 4: 0.0000"]


def test_agreement_takes_the_row_that_is_worst_off():
    rows = normalize(torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    ids = torch.zeros(1, dtype=torch.int64)
    other = rows.clone()
    other[0, 2] = -rows[0, 2]
    agreement = agree(plain(other), plain(rows), ids, ids)
    wanted = max(float(rows[0, 2] @ row) for row in other[0])
    assert float(agreement.cosine) == pytest.approx(wanted, abs=1e-6)
    assert float(agreement.nearest) == pytest.approx(1.0)


def test_one_row_a_tag_is_said():
    check = one_row_check(averaged(sample()))
    assert (check.severity, check.count, check.passed) == ("warning", 150, False)
    assert one_row_check(sample()).passed


def test_defects_make_a_check():
    from ramflow.embed.defects import defects

    assert defect_check(defects(sample()), 150).passed
    broken = defect_check(defects(changed(sample(), sample().embeddings * 2)), 150)
    assert (broken.id, broken.passed, broken.count) == ("embed.defects", False, 1)
