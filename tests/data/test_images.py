"""Decoding: every pixel or a named fault."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from ramflow.data.images import ImageFault, decode_rgb, load_image, open_image, to_rgb


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def kind_of_fault(data: bytes, **options) -> str:
    with pytest.raises(ImageFault) as fault:
        decode_rgb(data, **options)
    return fault.value.kind


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_bit_for_bit(picture, image_format):
    data = encoded(picture, image_format)
    assert open_image(data).format == image_format
    assert np.array_equal(np.asarray(decode_rgb(data)), np.asarray(picture))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_other_formats_decode_to_the_same_size(picture, image_format):
    assert decode_rgb(encoded(picture, image_format)).size == picture.size


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_every_cut_of_the_pixels_is_a_fault(picture, image_format):
    data = encoded(picture, image_format)
    for part in (0.5, 0.75, 0.95):
        assert kind_of_fault(data[: int(part * len(data))]) in ("truncated", "not_an_image")


def test_a_jpeg_without_its_last_bytes_is_truncated(picture):
    data = encoded(picture, "JPEG")
    assert kind_of_fault(data[:-2]) == "truncated"


@pytest.mark.parametrize("filling", [b"\0", b"A", b"\xff", b"\xff\xda"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_is_cut_and_filled_up_is_truncated(picture, filling, options):
    whole = encoded(picture.resize((300, 200)), "JPEG", quality=90, **options)
    for part in (0.3, 0.6, 0.9, 0.99):
        cut = whole[: int(part * len(whole))]
        assert kind_of_fault(cut + (filling * len(whole))[: len(whole) - len(cut)]) == "truncated"


@pytest.mark.parametrize("behind", [b"\0" * 999, b"\xff\xda" * 9, b"ftypmp42" * 99])
def test_what_follows_the_end_of_a_jpeg_is_no_fault(picture, behind):
    assert decode_rgb(encoded(picture, "JPEG") + behind).size == picture.size


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(picture):
    with_thumbnail = Image.Exif().tobytes() + encoded(picture.resize((8, 8)), "JPEG")
    data = encoded(picture.resize((300, 200)), "JPEG", exif=with_thumbnail)
    cut = data[: len(data) // 2]
    assert cut.count(b"\xff\xd9") == 1 and data.count(b"\xff\xd9") == 2
    assert decode_rgb(data + b"\0").size == (300, 200)
    assert kind_of_fault(cut + b"A" * (len(data) - len(cut))) == "truncated"


def test_padding_and_junk_between_the_segments_of_a_jpeg_are_no_fault(picture):
    data = encoded(picture, "JPEG")
    tables = data.index(b"\xff\xdb")
    for between in (b"\xff\xff\xff", b"\0\0"):
        assert decode_rgb(data[:tables] + between + data[tables:] + b"\0").tobytes() == decode_rgb(data).tobytes()


def test_an_image_is_decoded_in_the_mode_of_its_file_and_rgb_is_not_copied(picture):
    image = load_image(encoded(picture, "PNG"))
    assert image.mode == "RGB" and to_rgb(image) is image
    assert load_image(encoded(picture.convert("CMYK"), "JPEG")).mode == "CMYK"


@pytest.mark.parametrize("data", [b"<html><body>404 Not Found</body></html>", b"plain text", b"\x00" * 100])
def test_other_bytes_are_not_an_image(data):
    assert kind_of_fault(data) == "not_an_image"


def test_formats_that_pillow_hands_to_outside_programs_are_not_opened(picture):
    assert kind_of_fault(encoded(picture, "EPS")) == "not_an_image"


def test_no_bytes_are_empty():
    assert kind_of_fault(b"") == "empty"


def test_a_bomb_is_refused_by_its_header(picture):
    assert kind_of_fault(encoded(picture, "PNG"), max_pixels=40 * 60 - 1) == "too_large"
    assert decode_rgb(encoded(picture, "PNG"), max_pixels=40 * 60).size == (60, 40)
    bomb = encoded(Image.new("1", (14_000, 14_000)), "PNG")
    assert len(bomb) < 100_000 and kind_of_fault(bomb) == "too_large"


def test_transparent_pixels_lie_on_white(picture):
    image = picture.convert("RGBA")
    image.putalpha(0)
    assert decode_rgb(encoded(image, "PNG")).getextrema() == ((255, 255),) * 3
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert decode_rgb(encoded(palette, "PNG")).getpixel((0, 0)) == (10, 20, 30)
    assert decode_rgb(encoded(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("image_format", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(image_format, mode):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = encoded(Image.fromarray(ramp.astype(">u2" if mode == "I;16B" else "<u2")), image_format)
    assert load_image(data).mode == mode
    decoded = np.asarray(decode_rgb(data))
    assert np.array_equal(decoded[..., 0], (ramp // 256).astype(np.uint8))


def test_no_damage_makes_anything_but_an_image_or_a_fault(picture):
    chance = random.Random(0)
    faults = 0
    for image_format in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP"):
        data = encoded(picture.resize((16, 16)), image_format)
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(4):
                damaged[chance.randrange(len(data))] = chance.randrange(256)
            try:
                decode_rgb(bytes(damaged))
            except ImageFault:
                faults += 1
    assert faults > 60
