"""Decoding for training gives the audit's pixels or the audit's refusal, never a padded picture."""

import io

import numpy as np
import pytest
from PIL import Image

from ramflow.data.images import ImageFault, decode_rgb
from ramflow.train.decode import decode_pixels
from tests.train.test_augment import picture


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x112] = 6

FILES = {
    "jpeg": encoded("JPEG", quality=90),
    "progressive": encoded("JPEG", progressive=True),
    "444": encoded("JPEG", subsampling=0),
    "grey": encoded("JPEG", "L"),
    "inks": encoded("JPEG", "CMYK"),
    "rgb": encoded("JPEG", keep_rgb=True),
    "turned": encoded("JPEG", exif=TURNED),
    "followed": encoded("JPEG") + b"other bytes",
    "png": encoded("PNG"),
    "transparent": encoded("PNG", "RGBA"),
    "webp": encoded("WEBP"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_the_audits(name):
    pixels = decode_pixels(FILES[name])
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.asarray(decode_rgb(FILES[name])))


JPEG = FILES["jpeg"]
DAMAGED = {
    "half": JPEG[: len(JPEG) // 2],
    "without its last bytes": JPEG[:-2],
    "without its last pixels": JPEG[:-40],
    "half, then zeros": JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
    "half of a progressive one": FILES["progressive"][: len(FILES["progressive"]) // 2],
    "half of a PNG": FILES["png"][: len(FILES["png"]) // 2],
    "an error page": b"<html>not found</html>",
    "a JPEG's first bytes": JPEG[:3],
    "nothing": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_cut_off_is_a_fault(name):
    with pytest.raises(ImageFault):
        decode_pixels(DAMAGED[name])


def test_an_image_that_is_too_large_is_a_fault():
    buffer = io.BytesIO()
    Image.new("L", (8001, 8000)).save(buffer, "JPEG")
    with pytest.raises(ImageFault, match="8001 x 8000"):
        decode_pixels(buffer.getvalue())
