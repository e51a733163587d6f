"""Each diagnosis, planted on real vectors; which tags and how many is part of the answer."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.functional import normalize

from ramflow.embed.consistency import compare
from ramflow.embed.defects import defects
from tests.embed.planted import averaged, changed, chosen, encode, faults, kinds, other_clip, plain, public, sample

PHOTO, DRAWING, CLIP_ART = "a photo of a {}.", "a drawing of {}.", "clip art of {}."


def only(comparison, kind):
    assert faults(comparison) == [kind], comparison.diagnoses
    return comparison.diagnoses[0]


def without(count, gone):
    return [tag for tag in range(count) if tag not in set(gone)]


@pytest.mark.parametrize("step", [1, -3, 70])
def test_a_list_turned_by_some_tags(step):
    turned = chosen(sample(), [(tag + step) % 150 for tag in range(150)])
    diagnosis = only(compare(turned, sample()), "shifted")
    assert f"row i is that of tag i{step:+d};" in diagnosis.message
    assert len(diagnosis.tags) == 150


def test_a_shift_from_one_tag_on():
    diagnosis = only(compare(chosen(sample(), without(150, [42])), sample()), "shifted")
    assert "shifted by +1 from tag 42 to tag 148" in diagnosis.message
    assert diagnosis.tags == tuple(range(42, 149))


def test_a_tag_that_went_to_the_end_of_the_list():
    diagnosis = compare(chosen(sample(), [*range(60), *range(61, 150), 60]), sample()).diagnoses[0]
    assert diagnosis.kind == "shifted" and "shifted by +1 from tag 60 to tag 148" in diagnosis.message


def test_a_block_that_is_one_tag_late():
    order = [*range(20), 19, *range(20, 79), *range(80, 150)]
    diagnosis = compare(chosen(sample(), order), sample()).diagnoses[0]
    assert diagnosis.kind == "shifted"
    assert "shifted by -1 from tag 20 to tag 79" in diagnosis.message or "from tag 21 to tag 79" in diagnosis.message


@pytest.mark.parametrize("number", [2, 5, 40])
def test_dropped_tags_are_named_by_their_ids(number):
    gone = sorted(random.Random(number).sample(range(1, 149), number))
    diagnosis = only(compare(chosen(sample(), without(150, gone)), sample()), "reindexed")
    assert diagnosis.tags == tuple(gone)
    assert f"{number} tags of the reference were dropped" in diagnosis.message


def test_tags_put_in_are_a_re_indexing_too():
    fewer = chosen(sample(), without(150, [5, 60, 90]))
    diagnosis = compare(sample(), fewer).diagnoses[0]
    assert diagnosis.kind == "reindexed"
    assert "3 tags were put in, later rows moved down (first put in: 5, 60, 90)" in diagnosis.message


@pytest.mark.parametrize("pair", [(5, 40), (5, 6), (0, 149)])
def test_two_tags_changed_about(pair):
    order = list(range(150))
    order[pair[0]], order[pair[1]] = pair[1], pair[0]
    diagnosis = only(compare(chosen(sample(), order), sample()), "permuted")
    assert diagnosis.tags == tuple(sorted(pair))


def test_a_list_in_no_order():
    order = random.Random(1).sample(range(150), 150)
    diagnosis = only(compare(chosen(sample(), order), sample()), "permuted")
    assert diagnosis.tags == tuple(tag for tag, other in enumerate(order) if tag != other)
    assert f"tag {diagnosis.tags[0]} has the rows of tag {order[diagnosis.tags[0]]}" in diagnosis.evidence


def test_a_file_that_is_cut_off_or_too_long():
    short = chosen(sample(), list(range(143)))
    assert only(compare(short, sample()), "missing_tags").tags == tuple(range(143, 150))
    assert only(compare(sample(), short), "extra_tags").tags == tuple(range(143, 150))


def test_averaged_descriptions():
    diagnosis = only(compare(averaged(sample()), sample()), "averaged")
    assert "one row a tag, the mean of its descriptions" in diagnosis.message
    assert len(diagnosis.tags) > 100


def test_averaged_descriptions_in_every_row():
    rows = averaged(sample()).embeddings.expand(-1, 8, -1)
    assert "the 8 rows of a tag are equal" in only(compare(plain(rows), sample()), "averaged").message


def test_averaged_and_re_indexed_are_both_found():
    """The story: tags dropped, and embeddings rebuilt with the helper that averages."""
    gone = [3, 17, 18, 77, 120]
    comparison = compare(averaged(chosen(sample(), without(150, gone))), sample())
    assert faults(comparison) == ["reindexed", "averaged"]
    assert comparison.diagnoses[0].tags == tuple(gone)


def test_one_row_a_tag_that_is_no_mean():
    first = plain(sample().embeddings[:, :1])
    diagnosis = only(compare(first, sample()), "one_row")
    assert "with the nearest of them 1.0000" in diagnosis.evidence


def test_rows_that_are_not_unit():
    diagnosis = only(compare(changed(sample(), sample().embeddings * 7.3), sample()), "not_unit")
    assert "lengths 7.3 to 7.3" in diagnosis.evidence
    rows = sample().embeddings.clone()
    rows[12, 1] *= 0.9
    assert only(compare(changed(sample(), rows), sample()), "not_unit").tags == (12,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_a_harmless_fact(dtype):
    comparison = compare(changed(sample(), sample().embeddings.to(dtype)), sample())
    assert (kinds(comparison), faults(comparison)) == (["half_precision"], [])
    assert str(dtype).removeprefix("torch.") in comparison.diagnoses[0].message
    assert float(comparison.cosines.min()) > 0.9999


def test_numbers_of_low_precision_that_lost_more_are_no_half_precision_alone():
    coarse = changed(sample(), normalize((sample().embeddings * 20).round() / 20, dim=-1))
    assert "other_texts" in faults(compare(coarse, sample()))


def test_rows_that_were_never_filled_or_broke():
    rows = sample().embeddings.clone()
    rows[10:30], rows[40, 0] = 0.0, float("nan")
    comparison = compare(changed(sample(), rows), sample())
    diagnosis = only(comparison, "faulty_rows")
    assert diagnosis.tags == (*range(10, 30), 40)
    assert "1 with NaN" in diagnosis.evidence


def test_a_table_of_zeros():
    comparison = compare(changed(sample(), sample().embeddings * 0), sample())
    assert only(comparison, "faulty_rows").tags == tuple(range(150))
    assert comparison.figures()["min_cosine"] == 0.0


def test_tags_that_share_one_vector():
    rows = sample().embeddings.clone()
    rows[50:60] = rows[50, :1]
    assert only(compare(plain(rows[:, :2]), plain(sample().embeddings[:, :2])), "constant").tags == tuple(range(50, 60))


def test_one_vector_for_all():
    rows = sample().embeddings[:1, :1].expand(150, 2, -1)
    assert only(compare(plain(rows), sample()), "constant").tags == tuple(range(150))


def test_random_numbers():
    rows = normalize(torch.randn(150, 8, 128, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert faults(compare(plain(rows), sample())) == ["random"]
    assert [d.kind for d in defects(plain(rows))] == ["random"]


def other_encoder(width, seed=0):
    """Two layers of another kind on top of the sample's CLIP: vectors of other directions for the same texts."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(128, 256, generator=draw) / 128**0.5
    out = torch.randn(256, width, generator=draw) / 16
    return changed(sample(), normalize((sample().embeddings @ hidden * 3).tanh() @ out, dim=-1))


@pytest.mark.parametrize(("width", "harmless"), [(128, False), (96, True)])
def test_another_encoder(width, harmless):
    comparison = compare(other_encoder(width), sample())
    diagnosis = comparison.diagnoses[0]
    assert (diagnosis.kind, diagnosis.harmless) == ("another_encoder", harmless)
    assert comparison.correlation > 0.5
    assert (comparison.cosines is None) == (width != 128)


def test_another_encoder_in_no_order_is_not_told_from_other_tags():
    order = random.Random(2).sample(range(150), 150)
    assert faults(compare(chosen(other_encoder(128), order), sample())) == ["unrelated"]


@pytest.mark.parametrize(("width", "wanted"), [(128, ["another_encoder", "reindexed"]), (160, ["reindexed"])])
def test_another_encoder_and_a_re_indexed_list_are_both_found(width, wanted):
    reference, other = public(PHOTO), other_clip(3, width)
    assert faults(compare(other, reference)) == [kind for kind in wanted if kind != "reindexed"]
    gone = sorted(random.Random(4).sample(range(4585), 144))
    comparison = compare(chosen(other, without(4585, gone)), reference)
    assert faults(comparison) == wanted
    found = next(d for d in comparison.diagnoses if d.kind == "reindexed").tags
    assert len(found) == 144
    assert sum(min(abs(tag - other) for other in found) <= 3 for tag in gone) > 130


def test_another_encoder_and_a_late_shift_are_both_found():
    """Where most tags are in place, the similarities still correlate: that alone must not pass for all is well."""
    comparison = compare(chosen(other_clip(3, 160), without(4585, [3000])), public(PHOTO))
    assert comparison.correlation > 0.5
    assert "shifted by +1 from tag 3000" in comparison.diagnoses[0].message


def test_other_texts_of_some_tags_are_named():
    rows = sample().embeddings.clone()
    rows[[7, 99], 0] = encode(["a wheelbarrow full of snow", "two violins on a chair"])
    diagnosis = only(compare(changed(sample(), rows), sample()), "other_texts")
    assert diagnosis.tags == (7, 99)


def test_another_template_at_one_place():
    draws, photos = public(DRAWING, CLIP_ART), public(PHOTO, CLIP_ART)
    diagnosis = only(compare(draws, photos), "other_texts")
    assert "1 places of a tag agree, others do not: 0" in diagnosis.evidence


def test_another_template_of_the_public_list():
    assert only(compare(public(CLIP_ART), public(PHOTO)), "other_texts").evidence.endswith("whether it is their mean")


def test_the_failed_run_on_the_public_list():
    """144 of 4585 tags dropped and re-indexed, descriptions averaged, and of another template at that."""
    reference = public(PHOTO, DRAWING, CLIP_ART)
    gone = sorted(random.Random(4).sample(range(4585), 144))
    kept = chosen(reference, without(4585, gone))
    comparison = compare(averaged(kept), reference)
    assert faults(comparison) == ["reindexed", "averaged"]
    assert comparison.diagnoses[0].tags == tuple(gone)
    other = compare(chosen(public(CLIP_ART), without(4585, gone)), public(PHOTO))
    assert faults(other) == ["reindexed", "other_texts"]
    found = other.diagnoses[0].tags
    assert len(found) == 144
    assert sum(min(abs(tag - other) for other in found) <= 3 for tag in gone) > 110


def test_a_description_too_many_and_one_too_few_shift_rows_between():
    """F06: 4 descriptions for tag 30 and 2 for tag 100 in a file of 3 each."""
    rows = public(PHOTO, DRAWING, CLIP_ART).embeddings[:200]
    flat = rows.flatten(0, 1)
    moved = torch.cat([flat[:93], encode(["one more"]), flat[93:302], flat[303:]]).view(200, 3, -1)
    diagnosis = only(compare(plain(moved), plain(rows)), "rows_shifted")
    assert (diagnosis.tags[0], diagnosis.tags[-1]) == (31, 100)
    assert len(diagnosis.tags) > 60
    assert "a step of -1 rows" in diagnosis.evidence
