"""One image inspected: each fault is found where it is planted, and nothing else is; whole images pass."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from benchmarks.pictures import photo
from ramflow.audit import images as audited
from ramflow.audit.checks import KINDS
from ramflow.audit.images import Row, inspect
from ramflow.data import images
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.settings import AuditSettings
from tests.conftest import draw

BY_ID = {kind.id: kind for kind in KINDS}

SETTINGS = AuditSettings(max_image_pixels=1_000_000)
UNUSABLE = {
    "images.sha256_mismatch", "images.empty", "images.html", "images.not_an_image", "images.too_large",
    "images.truncated",
}  # fmt: skip


def encoded(image: Image.Image, image_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def looked(data: bytes, path: str = "a/picture", settings: AuditSettings = SETTINGS) -> audited.Looked:
    return inspect(data, Row(path, len(data), hashlib.sha256(data).hexdigest()), settings)


def faults(data: bytes, path: str = "a/picture", settings: AuditSettings = SETTINGS) -> list[str]:
    return [check for check, _ in looked(data, path, settings).faults]


PHOTO = photo(0)
PICTURE = draw("circle", "red", 7)
TURNED = Image.Exif()
TURNED[0x0112] = 6
FAULTS: dict[str, tuple[str, bytes]] = {
    "images.empty": ("a.jpg", b""),
    "images.html": ("a.jpg", b"<!DOCTYPE html><title>404</title>"),
    "images.not_an_image": ("a.jpg", b'{"error": "rate limit"}'),
    "images.too_large": ("a.png", encoded(Image.new("1", (6000, 6000)), "PNG")),
    "images.truncated": ("a.jpg", encoded(PHOTO)[:-2000]),
    "images.extension": ("a.jpg", encoded(PICTURE, "PNG")),
    "images.orientation": ("a.jpg", encoded(PHOTO, exif=TURNED)),
    "images.frames": ("a.gif", encoded(PICTURE, "GIF", save_all=True, append_images=[draw("square", "blue", 1)])),
    "images.mode": ("a.jpg", encoded(PHOTO.convert("CMYK"))),
    "images.small": ("a.jpg", encoded(PICTURE.resize((48, 15)))),
    "images.aspect": ("a.jpg", encoded(PHOTO.crop((0, 0, 640, 40)))),
    "images.blank": ("a.jpg", encoded(Image.new("RGB", (48, 48), (200, 200, 201)))),
    "images.dark": ("a.jpg", encoded(PHOTO.point(lambda value: value // 20))),
    "images.light": ("a.jpg", encoded(PHOTO.point(lambda value: 247 + value // 32))),
    "images.blurred": ("a.jpg", encoded(PHOTO.filter(ImageFilter.GaussianBlur(16)))),
}
"""Check: name and bytes of a file that has this fault only."""


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found_and_nothing_else(check):
    path, data = FAULTS[check]
    [(found, detail)] = looked(data, path).faults
    assert found == check and detail
    assert BY_ID[check].unusable == (check in UNUSABLE) and not BY_ID[check].quarantines


def test_every_check_of_images_is_planted():
    planted = {*FAULTS, "images.sha256_mismatch", "images.unusable"}
    assert planted == {check for check in BY_ID if check.startswith("images.")}


def test_bytes_that_are_not_those_of_the_manifest():
    data = encoded(PICTURE)
    digest = hashlib.sha256(data).hexdigest()
    assert inspect(data, Row("a.jpg", len(data), digest), SETTINGS).faults == []
    changed = data[:-3] + b"\0\xff\xd9"
    [(check, detail)] = inspect(changed, Row("a.jpg", len(data), digest), SETTINGS).faults
    assert check == "images.sha256_mismatch" and digest[:16] in detail
    [(check, detail)] = inspect(data + b"\0", Row("a.jpg", len(data), digest), SETTINGS).faults
    assert (check, detail) == ("images.sha256_mismatch", f"{len(data) + 1} bytes, not {len(data)}")


CLEAN = [
    *(("a.jpg", encoded(photo(number), quality=60 + 4 * number)) for number in range(8)),
    ("a.jpg", encoded(photo(8).convert("L"))),
    ("a.jpg", encoded(photo(9), progressive=True)),
    ("a.JPEG", encoded(photo(1), exif=Image.Exif())),
    ("a.png", encoded(PHOTO, "PNG")),
    ("a.webp", encoded(PHOTO, "WEBP")),
    ("a.avif", encoded(PHOTO, "AVIF")),
    ("a.gif", encoded(PHOTO.convert("P"), "GIF")),
    ("a.tiff", encoded(PICTURE, "TIFF")),
    ("a.bmp", encoded(PICTURE, "BMP")),
    ("a", encoded(PICTURE)),
    ("Mt. Fuji", encoded(PICTURE)),
]


@pytest.mark.parametrize("number", range(len(CLEAN)))
def test_whole_images_pass(number):
    path, data = CLEAN[number]
    seen = looked(data, path)
    assert seen.faults == [] and seen.phash is not None and not seen.blank


def test_the_pictures_of_the_fixture_pass(images_dir):
    for path in (images_dir / "shapes").iterdir():
        assert faults(path.read_bytes(), path.name) == []


def test_drawings_on_a_transparent_ground_pass():
    for shape, colour in (("circle", "red"), ("square", "blue"), ("triangle", "red")):
        drawing = draw(shape, colour, 0, side=200).convert("RGBA")
        ground = drawing.getpixel((0, 0))
        drawing.putdata([(0, 0, 0, 0) if pixel == ground else pixel for pixel in drawing.get_flattened_data()])
        assert faults(encoded(drawing, "PNG"), "a.png") == []


def test_an_image_is_opened_and_decoded_once(monkeypatch):
    calls = []
    whole = images.load_image
    monkeypatch.setattr(audited, "load_image", lambda *given: calls.append("load") or whole(*given))
    monkeypatch.setattr(images.Image, "open", count(calls, images.Image.open))
    assert faults(encoded(PICTURE)) == [] and calls == ["load", "open"]


def count(calls: list[str], function):
    def counted(*args, **options):
        calls.append("open")
        return function(*args, **options)

    return counted


def test_the_hash_is_of_the_picture_and_not_of_the_file():
    one, other = (looked(data).phash for data in (encoded(PHOTO, quality=95), encoded(PHOTO, "PNG")))
    smaller = looked(encoded(PHOTO.resize((400, 300), Image.Resampling.LANCZOS), quality=70)).phash
    assert (one ^ other).bit_count() <= 2 and (one ^ smaller).bit_count() <= 4
    assert (one ^ looked(encoded(photo(2))).phash).bit_count() > 16


def test_what_is_damaged_or_blank_has_no_hash():
    assert looked(encoded(PHOTO)[:-2000])[1:] == (None, False)
    assert looked(encoded(Image.new("RGB", (300, 200), "white"), "PNG"))[1:] == (None, True)


def test_random_damage_never_stops_the_audit():
    chance = np.random.default_rng(0)
    for image_format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        data = bytearray(encoded(PICTURE, image_format, exif=TURNED))
        for _ in range(40):
            damaged = data.copy()
            for place in chance.integers(0, len(data), 6):
                damaged[place] = chance.integers(0, 256)
            assert all(check in BY_ID for check in faults(bytes(damaged)))


# ---- the same through the stage: packed, audited in worker processes, quarantined ----


@pytest.fixture
def pack_with(pack_records, records, copy_of, images_dir):
    """Pack the records with other bytes for the first image of train."""

    def pack(data: bytes):
        folder = copy_of(images_dir)
        (folder / records[0]["image_path"]).write_bytes(data)
        return pack_records(records[:12], records[12:18], records[18:], images=folder)

    return pack


@pytest.mark.parametrize(
    ("check", "workers"),
    [("images.truncated", 1), ("images.truncated", 2), ("images.html", 1), ("images.orientation", 1)],
)
def test_the_stage_quarantines_what_is_unusable(audit, pack_with, check, workers):
    done = audit(pack_with(FAULTS[check][1]), workers=workers)
    assert done.failed() == {check}
    [(key, detail)] = done.rows(check)
    assert key == "train_000000000" and detail
    found = done.check(check)
    assert (found.count, found.total, found.severity, found.examples) == (1, 24, "warning", [key])
    assert done.quarantine.rows() == (
        [(0, key, "train", "shapes/circle_red_0.jpg", check)] if check in UNUSABLE else []
    )
    assert done.verdict.metrics["unusable"] == (check in UNUSABLE)
    assert done.verdict.passed


def test_bytes_that_are_not_the_packed_ones_are_an_error(audit, tiny_data, copy_of):
    data = copy_of(tiny_data)
    shard, offset, length = Dataset(data).manifest.select("shard", "offset", "length").row(2)
    content = bytearray((data / shard).read_bytes())
    content[offset : offset + length] = encoded(PICTURE.resize((8, 8))).ljust(length, b"\0")[:length]
    (data / shard).write_bytes(content)
    done = audit(data, min_image_side=1, blurred_below=0.0)
    assert [f.id for f in done.verdict.failures()] == ["images.sha256_mismatch"]
    assert done.rows("images.sha256_mismatch")[0][0] == "train_000000002"
    assert done.quarantine["check"].to_list() == ["images.sha256_mismatch"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_shard_that_cannot_be_read_stops_the_audit_in_one_line(audit, tiny_data, copy_of, damage, workers):
    data = copy_of(tiny_data)
    shard = data / "train-00001.tar"
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(UserError, match=rf"train-00001\.tar is {damage}: fetch or pack the dataset again"):
        audit(data, workers=workers)


@pytest.mark.parametrize(("share", "passes"), [(2 / 24, True), (1.9 / 24, False)])
def test_the_share_of_unusable_images_is_a_gate(audit, pack_records, records, copy_of, images_dir, share, passes):
    folder = copy_of(images_dir)
    (folder / records[0]["image_path"]).write_bytes(b"")
    (folder / records[20]["image_path"]).unlink()
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=folder), max_unusable_share=share)
    gate = done.check("images.unusable")
    assert (gate.count, gate.total, gate.passed, done.verdict.passed) == (2, 24, passes, passes)
    assert gate.examples == ["train_000000000", records[20]["image_path"]]
