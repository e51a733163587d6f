"""Kinds of files that decode and are still not what they seem: modes, orientation, frames, shapes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.pictures import photo
from ramflow.audit.decode import of_file
from ramflow.data.images import load_image, to_rgb
from tests.conftest import draw

ORIENTATION = 0x0112
PHOTO = photo(2)
PICTURES = [draw("circle", "red", n, side=64) for n in range(4)]


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def found(data: bytes, max_aspect: float = 10, min_side: int = 16) -> list[tuple[str, str]]:
    return of_file(data, load_image(data), max_aspect, min_side)


def exif(value: object) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = value
    return tags


@pytest.mark.parametrize(
    ("image", "image_format", "detail"),
    [
        (PHOTO.convert("CMYK"), "JPEG", "CMYK in a JPEG"),
        (PHOTO.convert("P"), "PNG", "P in a PNG"),
        (PHOTO.convert("1"), "PNG", "1 in a PNG"),
        (Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG", "16 bits a channel: 8 are kept"),
        (Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "TIFF", "I;16 in a TIFF"),
        (PHOTO.convert("F"), "TIFF", "F in a TIFF"),
    ],
)
def test_unusual_modes(image, image_format, detail):
    assert found(encoded(image, image_format)) == [("images.mode", detail)]


def test_sixteen_bits_of_colour_are_seen_though_they_decode_as_eight():
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    assert load_image(data).mode == "RGB"
    assert found(data) == [("images.mode", "16 bits a channel: 8 are kept")]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_ordinary_modes_pass(mode):
    assert found(encoded(PHOTO.convert(mode), "PNG")) == []


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_found_where_viewers_turn_the_picture(value, image_format):
    data = encoded(draw("triangle", "blue", 1), image_format, exif=exif(value))
    image = Image.open(io.BytesIO(data))
    turned = not np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(image))
    assert [check for check, _ in found(data)] == (["images.orientation"] if value > 1 else [])
    assert turned == (value > 1)


def test_what_orientation_says_is_how_the_pixels_lie():
    upright = np.asarray(draw("triangle", "red", 1, side=64))
    for value, turns, words in ((6, 1, "turned to the left"), (8, 3, "turned to the right"), (3, 2, "upside down")):
        data = encoded(Image.fromarray(np.rot90(upright, turns)), "PNG", exif=exif(value))
        assert found(data) == [("images.orientation", f"the pixels lie {words}")]
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))), upright)


def test_a_tiff_is_turned_by_the_decoder_already():
    data = encoded(PICTURES[0], "TIFF", tiffinfo={ORIENTATION: 6})
    assert found(data) == []
    turned_back = np.rot90(np.asarray(to_rgb(load_image(data))))
    assert np.array_equal(turned_back, np.asarray(PICTURES[0]))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientations_that_mean_nothing_pass(value):
    assert found(encoded(PICTURES[0], "JPEG", exif=exif(value))) == []


def test_damaged_exif_is_no_exif():
    data = encoded(PICTURES[0], "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" + b"\xee" * 20)
    assert found(data) == []


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_frames_are_counted(image_format):
    data = encoded(PICTURES[0], image_format, save_all=True, append_images=PICTURES[1:])
    assert found(data) == [("images.frames", "4 frames")]
    assert found(encoded(PICTURES[0], image_format)) == []


def test_the_second_picture_of_a_phone_is_no_frame():
    data = encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO.resize((60, 40))])
    assert Image.open(io.BytesIO(data)).n_frames == 2 and found(data) == []


def test_counting_frames_leaves_the_pixels_alone():
    data = encoded(PICTURES[0], "GIF", save_all=True, append_images=PICTURES[1:])
    image = load_image(data)
    before = to_rgb(image)
    of_file(data, image, 10, 16)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(before))


@pytest.mark.parametrize(
    ("size", "checks"),
    [
        ((160, 16), []), ((16, 160), []), ((161, 16), ["images.aspect"]), ((16, 161), ["images.aspect"]),
        ((15, 100), ["images.small"]), ((100, 15), ["images.small"]), ((151, 15), ["images.small", "images.aspect"]),
        ((1, 1), ["images.small"]),
    ],
)  # fmt: skip
def test_sizes(size, checks):
    assert [check for check, _ in found(encoded(Image.new("RGB", size), "PNG"))] == checks
