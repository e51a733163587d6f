"""Images that look alike: near duplicates, near leakage and benchmarks; and honest pictures pass."""

from __future__ import annotations

import shutil
from itertools import combinations

import numpy as np
import pytest

from ramflow.audit import likeness
from ramflow.audit.near import near_pairs
from tests.audit.conftest import photo

NEAR = {"set.near_duplicate", "set.near_leakage"}


@pytest.fixture
def pictures(tmp_path, records):
    """A folder of 24 pictures that look like photographs, none like another, at the paths of the records."""
    folder = tmp_path / "photos"
    (folder / "shapes").mkdir(parents=True)
    for seed, record in enumerate(records):
        photo(seed).save(folder / record["image_path"], quality=90)
    return folder


@pytest.fixture
def audit_pictures(audit, pack_records, records, pictures):
    """Audit the 24 records with ``pictures``, split in the usual way."""

    def run(**settings):
        return audit(pack_records(records[:12], records[12:18], records[18:], images=pictures), **settings)

    return run


@pytest.fixture
def again(pictures, records):
    """``again(of, to)``: picture ``to`` becomes picture ``of``, smaller and compressed once more."""

    def save(of, to, side=56):
        photo(of).resize((side, side)).save(pictures / records[to]["image_path"], quality=70)

    return save


def failed(done):
    return {c.id for c in done.verdict.checks if not c.passed} - {"tags.missing"}


def test_honest_pictures_pass(audit_pictures):
    assert failed(audit_pictures()) == set()


def test_a_picture_compressed_again_is_a_near_duplicate(audit_pictures, again):
    again(2, 7)
    again(2, 9, side=100)
    done = audit_pictures()
    assert failed(done) == {"set.near_duplicate"}
    assert [(key, said[:39]) for key, said in done.rows("set.near_duplicate")] == [
        ("train_000000007", "looks like train_000000002 of train: 0 "),
        ("train_000000009", "looks like train_000000002 of train: 0 "),
    ]
    assert done.verdict.passed and done.quarantine.is_empty()


def test_a_picture_compressed_again_in_a_later_split_is_near_leakage(audit_pictures, again):
    again(2, 13)
    again(14, 20)
    done = audit_pictures()
    assert failed(done) == {"set.near_leakage"}
    assert [(key, said[:37]) for key, said in done.rows("set.near_leakage")] == [
        ("validation_000000001", "looks like train_000000002 of train: "),
        ("test_000000002", "looks like validation_000000002 of va"),
    ]
    assert done.quarantine.is_empty()


def test_what_is_equal_is_not_called_near_too(audit_pictures, pictures, records):
    for of, to in ((2, 7), (2, 13)):
        shutil.copyfile(pictures / records[of]["image_path"], pictures / records[to]["image_path"])
    assert failed(audit_pictures()) == {"set.duplicate_image", "set.leakage"}


@pytest.mark.parametrize(("radius", "found"), [(0, False), (16, True)])
def test_the_radius_is_the_settings(audit_pictures, pictures, records, radius, found):
    """A corner painted over: some bits of the hash differ."""
    changed = photo(3)
    changed.paste((255, 255, 255), (0, 0, 24, 24))
    changed.save(pictures / records[5]["image_path"], quality=90)
    assert failed(audit_pictures(near_radius=radius)) == ({"set.near_duplicate"} if found else set())


def test_blank_pictures_are_not_alike(audit_pictures, pictures, records):
    for n, grey in ((3, 200), (5, 203)):
        photo(0).point(lambda _, grey=grey: grey).save(pictures / records[n]["image_path"])
    assert failed(audit_pictures()) == {"images.blank"}


def test_findings_agree_with_a_plain_loop():
    """Every image with its nearest before it, over random hashes that are close to one another."""
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**64, 12, dtype=np.uint64)
    flips = (np.uint64(1) << random.integers(0, 64, (300, 3), dtype=np.uint64)) * random.integers(
        0, 2, (300, 3), dtype=np.uint64
    )
    hashes = centres[random.integers(0, 12, 300)] ^ np.bitwise_xor.reduce(flips, axis=1)
    values, value = np.unique(hashes, return_inverse=True)
    samples = np.arange(300)
    near = likeness.nearest(
        samples, value, likeness.first_images(samples, value, len(values)), near_pairs(values, 2)
    )
    expected = {}
    for t, s in combinations(range(300), 2):
        far = int(hashes[t] ^ hashes[s]).bit_count()
        if far <= 2 and (far, t) < expected.get(s, (3, 0)):
            expected[s] = (far, t)
    found = {s: (d, t) for s, t, d in zip(*near, strict=True)}
    assert {s: d for s, (d, _) in found.items()} == {s: d for s, (d, _) in expected.items()}
    assert all(int(hashes[t] ^ hashes[s]).bit_count() == d and t < s for s, (d, t) in found.items())


@pytest.fixture
def benchmarks(tmp_path):
    """A folder of two benchmarks whose pictures are in no split."""
    folder = tmp_path / "benchmarks"
    for name, seed in (("open", 100), ("hico", 200)):
        (folder / name).mkdir(parents=True)
        for n in range(3):
            photo(seed + n).save(folder / name / f"{n}.jpg", quality=90)
    return folder


def test_benchmarks_of_other_pictures_pass(audit_pictures, benchmarks):
    done = audit_pictures(inputs={"benchmarks": benchmarks})
    assert done.check("set.benchmark_leakage").passed and failed(done) == set()


def test_benchmark_images_in_the_train_split_are_found_and_quarantined(
    audit_pictures, benchmarks, pictures, records, again
):
    shutil.copyfile(pictures / records[4]["image_path"], benchmarks / "open" / "1.jpg")
    shutil.copyfile(pictures / records[14]["image_path"], benchmarks / "open" / "2.jpg")  # of validation
    photo(6).resize((90, 90)).save(benchmarks / "hico" / "0.jpg", quality=60)
    done = audit_pictures(inputs={"benchmarks": benchmarks})
    assert failed(done) == {"set.benchmark_leakage"}
    (exact, near) = done.rows("set.benchmark_leakage")
    assert exact == ("train_000000004", "the bytes of open/1.jpg")
    assert near[0] == "train_000000006" and near[1].startswith("looks like hico/0.jpg: ")
    assert done.quarantine["sample"].to_list() == [4, 6] and done.verdict.passed
    used = [i for n, r in enumerate(records[:12]) if n not in (4, 6) for i in r["union_label_id"]]
    assert done.table.counts == [used.count(i) for i in range(6)]


def test_copies_of_a_benchmark_image_are_all_found(audit_pictures, benchmarks, pictures, records, again):
    for to in (3, 8):
        again(0, to)
    photo(0).save(benchmarks / "open" / "0.jpg", quality=50)
    done = audit_pictures(inputs={"benchmarks": benchmarks})
    assert [key for key, _ in done.rows("set.benchmark_leakage")] == [f"train_{n:09d}" for n in (0, 3, 8)]


def test_a_set_without_hashes_passes(audit, pack_records, records, tmp_path):
    folder = tmp_path / "flat"
    (folder / "shapes").mkdir(parents=True)
    for n, record in enumerate(records):
        photo(0).point(lambda _, n=n: 100 + n).save(folder / record["image_path"])
    done = audit(pack_records(records, images=folder))
    assert failed(done) & NEAR == set()
