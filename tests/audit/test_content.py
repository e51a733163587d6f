"""What a picture shows: faults of content are found, and ordinary pictures of every kind pass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from benchmarks.pictures import photo
from ramflow.audit.content import COSINES, Content, look, sharpness

PHOTOS = [photo(number) for number in range(12)]


def seen(image: Image.Image) -> Content:
    return look(image, dark_below=12, light_above=250, blurred_below=10)


def checks(image: Image.Image) -> list[str]:
    return [check for check, _ in seen(image).faults]


def bits_apart(one: Image.Image, other: Image.Image) -> int:
    return (seen(one).phash ^ seen(other).phash).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def on(ground: str, size: tuple[int, int] = (640, 480)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, ground)
    return image, ImageDraw.Draw(image)


def ramp(low: int, high: int) -> Image.Image:
    """A smooth change from left to right."""
    return Image.fromarray(np.tile(np.linspace(low, high, 640).astype(np.uint8)[None, :, None], (480, 1, 3)))


def test_photographs_pass():
    for number, image in enumerate(PHOTOS):
        for other in (image, image.transpose(Image.Transpose.ROTATE_90), image.resize((96, 72)), jpeg(image, 30)):
            assert checks(other) == [], number


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_blank_pictures_of_any_grey(level):
    image = Image.new("RGB", (500, 375), (level,) * 3)
    assert seen(image)[1:] == (None, True) and checks(image) == ["images.blank"]
    assert checks(jpeg(image, 75)) == ["images.blank"]


def test_blank_means_every_pixel():
    nearly, pen = on("white")
    pen.point((101, 77), fill="black")
    assert not seen(nearly).blank
    halftone = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (240, 320))).convert("RGB")
    assert not seen(halftone).blank
    assert not seen(ramp(100, 105)).blank and seen(ramp(100, 104)).blank
    two_colours, pen = on("#ff0000", (300, 200))  # of one grey
    pen.rectangle((0, 0, 150, 200), fill="#008200")
    assert checks(two_colours) == []


def test_dark_pictures():
    for image in PHOTOS[:4]:
        assert checks(image.point(lambda value: value // 20)) == ["images.dark"]
        assert checks(ImageEnhance.Brightness(image).enhance(0.3)) == []


def test_little_light_on_black_is_not_dark():
    night, pen = on("black")
    pen.ellipse((300, 60, 340, 100), fill="white")  # the moon
    assert np.asarray(night).mean() < 12 and checks(night) == []
    text, pen = on("black")
    pen.text((40, 200), "THE END", fill="white", font_size=40)
    assert np.asarray(text).mean() < 12 and checks(text) == []


def test_washed_out_pictures():
    for image in PHOTOS[:4]:
        assert checks(image.point(lambda value: 247 + value // 32)) == ["images.light"]
        assert checks(ImageEnhance.Brightness(image).enhance(2)) == []


@pytest.mark.parametrize("ink", ["black", "#808080", "#ff8080", "#60b0ff"])
def test_drawings_on_white_are_not_washed_out(ink):
    outline, pen = on("white")
    pen.ellipse((200, 100, 400, 300), outline=ink, width=2)
    small, pen = on("white", (160, 120))
    pen.regular_polygon((40, 40, 8), 5, fill=ink)
    sketch, pen = on("white", (1200, 900))
    pen.line([(100, 100), (900, 300), (200, 800), (1100, 850)], fill=ink, width=4)
    for drawing in (outline, small, sketch):
        assert np.asarray(drawing).mean() > 250 and checks(drawing) == [] and checks(jpeg(drawing, 85)) == []


def test_blurred_pictures():
    for image in PHOTOS[:4]:
        assert checks(image.filter(ImageFilter.GaussianBlur(16))) == ["images.blurred"]
        assert checks(image.filter(ImageFilter.GaussianBlur(2))) == []
        thumbnail = image.resize((20, 15)).resize((640, 480), Image.Resampling.BICUBIC)
        assert checks(thumbnail) == ["images.blurred"]
    assert checks(ramp(0, 255)) == ["images.blurred"]


def test_edges_of_colour_are_edges():
    flag, pen = on("#0a5c14")
    pen.ellipse((220, 140, 420, 340), fill="#f80000")  # nearly the same grey
    assert checks(flag) == []


def test_tiny_pictures_are_not_blurred():
    for size in ((1, 1), (1, 40), (40, 1), (2, 2), (3, 3)):
        image = Image.new("RGB", size, "white")
        image.putpixel((0, 0), (0, 0, 0))
        assert "images.blurred" not in checks(image)


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    by_hand = [
        4 * int(grey[y, x]) - int(grey[y - 1, x]) - int(grey[y + 1, x]) - int(grey[y, x - 1]) - int(grey[y, x + 1])
        for y in range(1, 8)
        for x in range(1, 6)
    ]
    assert sharpness(grey) == pytest.approx(np.var(by_hand))


def test_limits_that_name_nothing():
    for image in (Image.new("RGB", (64, 48), "black"), ramp(0, 255), PHOTOS[0].point(lambda value: value // 20)):
        assert {c for c, _ in look(image, dark_below=0, light_above=255, blurred_below=0).faults} <= {"images.blank"}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 40),
        lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
        lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_the_hash_stays_near_when_the_picture_is_changed_a_little(change):
    assert all(bits_apart(image, change(image)) <= 4 for image in PHOTOS)


def test_hashes_of_different_pictures_are_far_apart():
    hashes = [seen(image).phash for image in PHOTOS]
    apart = [(a ^ b).bit_count() for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(apart) > 12 and 28 < np.mean(apart) < 36
    assert all(20 <= value.bit_count() <= 32 for value in hashes)


def test_a_mirrored_picture_is_another():
    assert min(bits_apart(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for image in PHOTOS) > 12


def test_noise_sets_no_bits_of_a_symmetric_drawing():
    drawing, pen = on("white")
    pen.ellipse((120, 40, 520, 440), fill="#3060c0")
    pen.rectangle((300, 200, 340, 280), fill="white")
    assert all(bits_apart(drawing, jpeg(drawing, quality)) <= 2 for quality in (20, 50, 80))


def test_a_picture_of_stripes_is_too_plain_for_a_hash():
    flag, pen = on("white", (300, 200))
    pen.rectangle((0, 0, 300, 66), fill="blue")
    pen.rectangle((0, 66, 300, 133), fill="black")
    assert seen(flag) == Content([], None, False)


def test_the_hash_is_exact_so_that_no_processor_rounds_otherwise():
    cosines = [[int(value) for value in row] for row in COSINES]
    assert np.array_equal(cosines, COSINES)
    for number in range(4):
        image = photo(number).resize((256, 128))
        grid = np.asarray(image.convert("L").reduce((8, 4))).tolist()
        rows = [[sum(c * row[x] for x, c in enumerate(wave)) for wave in cosines] for row in grid]
        frequencies = [sum(c * rows[y][u] for y, c in enumerate(wave)) for wave in cosines for u in range(8)]
        ordered = sorted(frequencies)
        limit = ordered[31] + ordered[32] + 2 * 2**30  # a quarter of a grey level
        bits = "".join("1" if 2 * frequency > limit else "0" for frequency in frequencies)
        assert seen(image).phash == int(bits, 2)
