"""Seeded faults in the bytes: each is found where it is, and nothing else is."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from tests.conftest import draw

HARMLESS = {"images.extension", "images.small", "images.blank"}


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = draw("circle", "red", 7)
FAULTS = {
    "images.empty": b"",
    "images.not_an_image": b"<!DOCTYPE html><title>404</title>",
    "images.truncated": jpeg(PICTURE)[:-200],
    "images.too_large": png(Image.new("1", (6000, 6000))),
    "images.extension": png(PICTURE),
    "images.small": jpeg(PICTURE.resize((48, 15))),
    "images.blank": jpeg(Image.new("RGB", (48, 48), (200, 200, 201))),
}


@pytest.fixture
def pack_with(pack_records, records, copy_of, images_dir):
    """Pack the records with other bytes for the first image of train."""

    def pack(data: bytes):
        images = copy_of(images_dir)
        (images / records[0]["image_path"]).write_bytes(data)
        return pack_records(records[:12], records[12:18], records[18:], images=images)

    return pack


@pytest.mark.parametrize(("check", "workers"), [*((check, 1) for check in FAULTS), ("images.truncated", 2)])
def test_a_fault_is_found_and_nothing_else(audit, pack_with, check, workers):
    done = audit(pack_with(FAULTS[check]), workers=workers, max_image_pixels=1_000_000)
    assert done.failed() == {check}
    [(key, detail)] = done.rows(check)
    assert key == "train_000000000" and detail
    found = done.check(check)
    assert (found.count, found.total, found.severity, found.examples) == (1, 24, "warning", [key])
    assert done.quarantine.rows() == (
        [] if check in HARMLESS else [(0, key, "train", "shapes/circle_red_0.jpg", check)]
    )
    assert done.verdict.metrics["unusable"] == (check not in HARMLESS)
    assert done.verdict.passed


@pytest.mark.parametrize(
    ("image_format", "name"),
    [("JPEG", "a.jpeg"), ("JPEG", "a.JPG"), ("PNG", "a.png"), ("WEBP", "a.webp"), ("GIF", "a")],
)
def test_an_honest_extension_passes(audit, pack_records, records, copy_of, images_dir, image_format, name):
    images = copy_of(images_dir)
    PICTURE.save(images / name, image_format)
    records[0]["image_path"] = name
    assert audit(pack_records(records, images=images)).failed() == set()


def test_a_faint_picture_is_not_blank_and_a_large_side_is_not_small(audit, pack_with):
    faint = Image.new("RGB", (16, 400), (250, 250, 250))
    faint.paste((240, 250, 250), (0, 0, 16, 100))
    assert audit(pack_with(jpeg(faint))).failed() == set()


def test_bytes_that_are_not_the_packed_ones_are_an_error(audit, tiny_data, copy_of):
    data = copy_of(tiny_data)
    shard, offset, length = Dataset(data).manifest.select("shard", "offset", "length").row(2)
    content = bytearray((data / shard).read_bytes())
    content[offset : offset + length] = jpeg(PICTURE.resize((8, 8))).ljust(length, b"\0")[:length]
    (data / shard).write_bytes(content)
    done = audit(data)
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
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).write_bytes(b"")
    (images / records[20]["image_path"]).unlink()
    done = audit(pack_records(records[:12], records[12:18], records[18:], images=images), max_unusable_share=share)
    gate = done.check("images.unusable")
    assert (gate.count, gate.total, gate.passed, done.verdict.passed) == (2, 24, passes, passes)
    assert gate.examples == ["train_000000000", records[20]["image_path"]]
