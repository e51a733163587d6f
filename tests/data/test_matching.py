"""Images matched to records by caption: exactly, normalised, and never guessed."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections import defaultdict

import boto3
import pytest

from ramflow.data import joins
from ramflow.data.dataset import Dataset
from ramflow.data.normalise import normalised
from ramflow.data.pack import pack
from ramflow.data.places import LEAVES, NO_CAPTION, SEVERAL_IMAGES, SEVERAL_RECORDS
from ramflow.verdict import read_verdict


def record(number, *captions):
    return {"image_path": f"cc3m/{number}.jpg", "caption": list(captions)}


@pytest.fixture
def download(tmp_path):
    """``download(caption, ...)``: a folder of images as img2dataset leaves it; image n has the bytes ``image n``."""

    def make(*captions, name="downloaded", bytes_of=lambda n: f"image {n}".encode()):
        folder = tmp_path / name
        for n, caption in enumerate(captions):
            stem = folder / f"{n // 2:05d}" / f"{n:09d}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            stem.with_suffix(".jpg").write_bytes(bytes_of(n))
            if caption is not None:
                stem.with_suffix(".txt").write_text(caption, encoding="utf-8", newline="")
                stem.with_suffix(".json").write_text(json.dumps({"caption": caption, "key": f"{n}"}), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def match(tmp_path, tiny_tags):
    """``match(records, root, ...)``: bytes of the image by record number, and reason by record number."""

    def run(records, *roots, **options):
        (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
        out = tmp_path / "data"
        pack([str(tmp_path / "train.json")], roots, tiny_tags, out, **({"match": "caption"} | options))
        data = Dataset(out)
        number = {r["image_path"]: n for n, r in enumerate(records)}
        found = {number[path]: data.image(n).decode() for n, path in enumerate(data.manifest["image_path"])}
        return found, {number[path]: why for path, why in data.missing.select("image_path", "reason").iter_rows()}

    return run


def metrics(tmp_path):
    wanted = ("matched_exactly", "matched_normalised", "ambiguous")
    return tuple(read_verdict(tmp_path / "data").metrics[name] for name in wanted)


def test_equal_captions_and_then_normalised_ones(match, download, tmp_path):
    folder = download("a dog", "A Cat!", "  the   ﬁsh: blue", "STRASSE — No. 5", "nobody's", "A dog")
    records = [record(0, "generated", "a dog"), record(1, "a cat"), record(2, "The fish, blue.")]
    records += [record(3, "straße no 5"), record(4, "a bird"), record(5, "A DOG.")]
    assert match(records, folder) == (
        {0: "image 0", 1: "image 1", 2: "image 2", 3: "image 3", 5: "image 5"},
        {4: NO_CAPTION},
    )
    assert metrics(tmp_path) == (1, 4, 0)


@pytest.mark.parametrize(
    "captions", [("a dog", "a dog"), ("a dog", "a cat"), ("A dog", "a dog!"), ("a dog", "a dog", "a dog")]
)
def test_a_record_that_leads_to_several_images_is_ambiguous(match, download, tmp_path, captions):
    folder = download(*captions, "a bird", bytes_of=lambda n: b"x" * n)
    records = [record(0, "A DOG", "a dog.", "a cat", *captions[:2]), record(1, "a bird")]
    found, reasons = match(records, folder)
    assert found == {1: "x" * len(captions)} and reasons == {0: SEVERAL_IMAGES}
    assert metrics(tmp_path)[2] == 1
    [check] = [c for c in read_verdict(tmp_path / "data").checks if c.id == "pack.ambiguous_caption"]
    assert (check.severity, check.count, check.passed, check.examples) == ("warning", 1, False, ["cc3m/0.jpg"])


def test_images_of_one_size_are_compared_by_their_bytes(match, download):
    same, other = download("a dog", "a dog", bytes_of=lambda n: b"same"), download("a cat", "a cat", name="other")
    records = [record(0, "a dog"), record(1, "a cat")]
    assert match(records, same, other) == ({0: "same"}, {1: SEVERAL_IMAGES})


def test_two_captions_of_one_record_may_lead_to_the_same_bytes(match, download):
    folder = download("a dog", "a brown dog", "a cat", bytes_of=lambda n: b"same" if n < 2 else b"dog?")
    assert match([record(0, "a dog", "a brown dog"), record(1, "a cat", "a dog?")], folder)[0] == {0: "same", 1: "dog?"}
    assert match([record(0, "a dog", "a cat")], folder) == ({}, {0: SEVERAL_IMAGES})


def test_several_records_that_lead_to_one_image_are_ambiguous(match, download, tmp_path):
    folder = download("a dog", "a cat")
    records = [record(0, "a dog"), record(1, "x", "a dog"), record(2, "a cat"), record(3, "a dog", "a cat")]
    assert match(records, folder) == ({}, {**dict.fromkeys(range(3), SEVERAL_RECORDS), 3: SEVERAL_IMAGES})
    assert metrics(tmp_path) == (0, 0, 4)
    assert match(records[:1], folder) == ({0: "image 0"}, {})


def test_copies_of_an_image_do_not_serve_two_records(match, download):
    folder = download("a dog", "a dog", bytes_of=lambda n: b"same")
    assert match([record(0, "a dog"), record(1, "a dog")], folder) == ({}, {0: SEVERAL_RECORDS, 1: SEVERAL_RECORDS})


def test_what_was_matched_exactly_is_not_matched_again(match, download):
    """Record 1 is left over although its caption, normalised, is that of image 0; so are ambiguous ones."""
    folder = download("a dog", "a cat", "a cat", bytes_of=lambda n: b"y" * n)
    records = [record(0, "a dog"), record(1, "A dog"), record(2, "a cat"), record(3, "A CAT")]
    assert match(records, folder) == ({0: ""}, {1: NO_CAPTION, 2: SEVERAL_IMAGES, 3: NO_CAPTION})


def test_blank_captions_match_nothing(match, download):
    folder = download("", "  ", "...", None)
    assert match([record(0, ""), record(1, " "), record(2, "!"), record(3), record(4, "  \t")], folder) == (
        {}, dict.fromkeys(range(5), NO_CAPTION),
    )  # fmt: skip


def test_the_caption_of_a_json_counts_where_there_is_no_txt(match, download):
    folder = download("a dog", "a cat", "a bird", "a fish", "a cow", "a fox")
    one = lambda n, ending: folder / f"{n // 2:05d}" / f"{n:09d}{ending}"  # noqa: E731
    one(0, ".txt").unlink()
    one(1, ".json").unlink()
    one(2, ".txt").write_text("\n")
    one(3, ".txt").write_text("something else")
    one(4, ".txt").unlink()
    one(4, ".json").write_text('{"caption": null, "status": "success"}')
    one(5, ".txt").write_bytes(b"a f\xffx")
    one(5, ".json").write_text("not json")
    captions = ("a dog", "a cat", "a bird", "a fish", "a cow", "a f�x")
    found, reasons = match([record(n, c) for n, c in enumerate(captions)], folder)
    assert found == {n: f"image {n}" for n in (0, 1, 2, 5)} and set(reasons) == {3, 4}


def test_other_files_are_no_images(match, download):
    folder = download("a dog")
    (folder / "00000_stats.json").write_text('{"caption": "a dog", "count": 1}')
    (folder / "00000.parquet").write_bytes(b"PAR1")
    (folder / "note.txt").write_text("a dog")
    assert match([record(0, "a dog")], folder) == ({0: "image 0"}, {})


def as_tars(folder, out):
    """As img2dataset's webdataset format: a tar a folder, its members side by side."""
    out.mkdir()
    for inner in sorted(p for p in folder.iterdir() if p.is_dir()):
        with tarfile.open(out / f"{inner.name}.tar", "w") as tar:
            for path in sorted(inner.iterdir()):
                info = tarfile.TarInfo(path.name)
                info.size = path.stat().st_size
                tar.addfile(info, io.BytesIO(path.read_bytes()))
    return out


def upload(folder, bucket):
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            boto3.client("s3").upload_file(str(path), bucket, f"cc3m/{name}")
    return f"s3://{bucket}/cc3m"


@pytest.mark.parametrize("form", ["tars", "s3", "s3 tars", "tars, two workers"])
def test_downloads_in_tars_and_on_s3(match, download, tmp_path, bucket, monkeypatch, form):
    monkeypatch.setattr("ramflow.data.image_index.BATCH", 4)
    captions = ("a dog", "A cat", "two", "two", None, "a bird")
    root = download(*captions, bytes_of=lambda n: f"image {n}"[: 7 - n % 2].encode())
    if "tars" in form:
        root = as_tars(root, tmp_path / "tars")
    if "s3" in form:
        root = upload(root, bucket)
    records = [record(0, "a bird"), record(1, "a cat"), record(2, "a dog"), record(3, "two"), record(4, "three")]
    found, reasons = match(records, root, workers=2 if "two workers" in form else 1)
    assert found == {0: "image ", 1: "image ", 2: "image 0"} and reasons == {3: SEVERAL_IMAGES, 4: NO_CAPTION}
    assert metrics(tmp_path) == (2, 1, 1)


def test_roots_by_path_and_by_caption_together(match, download, images_dir, records, tmp_path):
    """Records that are found by path take part in no matching by caption: record 0's caption is that of image 0."""
    folder = download(records[0]["caption"][0], "a dog", "a cat")
    chosen = [*records[:3], record(1, "a dog"), record(2, records[0]["caption"][0]), record(3, "?")]
    for n in range(3):
        shutil.copy(images_dir / records[n]["image_path"], tmp_path / f"{n}.jpg")
        chosen[n] = {**chosen[n], "image_path": f"{n}.jpg"}
        (tmp_path / f"{n}.jpg").write_bytes(f"by path {n}".encode())
    found, reasons = match(chosen, f"caption={folder}", tmp_path, match="path")
    assert found == {0: "by path 0", 1: "by path 1", 2: "by path 2", 3: "image 1", 4: "image 0"}
    assert reasons == {5: NO_CAPTION}
    assert match(chosen, folder, f"path={tmp_path}") == (found, reasons)


def test_a_path_that_leaves_the_folder_stays_missing(match, download):
    bad = {"image_path": "/data/0.jpg", "caption": ["a dog"]}
    assert match([bad, record(1, "a cat")], download("a dog", "a cat")) == ({1: "image 1"}, {0: LEAVES})


def one_by_one(records, images):
    """The rule in plain Python: (image by record, reason by record)."""
    found, reasons, used, seen = {}, {}, set(), set()
    for norm in (lambda text: text, normalised):
        by_key = defaultdict(list)
        for n, (caption, _) in enumerate(images):
            if norm(caption).strip() and n not in used:
                by_key[norm(caption)].append(n)
        led = {}
        for n, row in enumerate(records):
            keys = {norm(c) for c in row["caption"]}
            if n not in seen and (hits := {i for key in keys for i in by_key.get(key, ())}):
                led[n] = hits
        contents = {n: {images[i][1] for i in hits} for n, hits in led.items()}
        # an image stands for its copies that have the same caption
        first = {i: min(j for j in by_key[norm(images[i][0])] if images[j][1] == images[i][1]) for i in
                 {i for hits in led.values() for i in hits}}  # fmt: skip
        led = {n: {first[i] for i in hits} for n, hits in led.items()}
        shared = defaultdict(set)
        for n, hits in led.items():
            for i in hits:
                shared[i].add(n)
        for n, hits in led.items():
            if len(contents[n]) > 1:
                reasons[n] = SEVERAL_IMAGES
            elif any(len(shared[i]) > 1 for i in hits):
                reasons[n] = SEVERAL_RECORDS
            else:
                found[n] = images[min(hits)][1].decode()
        used |= {i for key in {norm(images[i][0]) for i in first} for i in by_key[key]}
        used |= {i for ids in by_key.values() for i in ids if any(j < i and images[j][1] == images[i][1] for j in ids)}
        seen |= set(led)
    return found, reasons | {n: NO_CAPTION for n in range(len(records)) if n not in found and n not in reasons}


@pytest.mark.parametrize("seed", range(20))
def test_random_sets_against_the_rule_in_plain_python(match, download, monkeypatch, seed):
    monkeypatch.setattr(joins, "ROWS", 5)
    r = random.Random(seed)
    words = [f"{a} {b}{c}" for a in ("a", "A") for b in ("dog", "cat", "fox", "Ox") for c in ("", ".")] + [" "]
    captions = [r.choice(words) + (f" {n // 2}" if r.random() < 0.8 else "") for n in range(30)]
    contents = [r.choice([b"a", b"bb", b"bc"]) if r.random() < 0.3 else b"c" * (3 + n) for n in range(30)]
    folder = download(*captions, bytes_of=contents.__getitem__)
    texts = [change(caption) for caption in captions for change in (str, str.upper, "{}!".format)]
    records = [record(n, *r.sample(texts, r.choice([1, 1, 1, 2]))) for n in range(25)]
    expected = one_by_one(records, list(zip(captions, contents, strict=True)))
    assert len(expected[0]) > 1 and SEVERAL_IMAGES in expected[1].values()
    assert match(records, folder) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog.", "a dog"),
        ("  A\tdog ,\n(brown)  ", "a dog brown"),
        ("snow-white_cat", "snow white cat"),
        ("ﬁve ①", "five 1"),
        ("Straße", "strasse"),
        ("İstanbul", "i̇stanbul"),
        ("e\u0301te\u0301", "été"),
        ("«Привет»… МИР！", "привет мир"),
        ("हिन्दी।", "हिन्दी"),
        ("3 € + 5 $", "3 € 5"),
        ("...", ""),
    ],
)
def test_normalised(text, expected):
    assert normalised(text) == expected and normalised(expected) == expected
