"""What bytes are that are no image, and names against formats."""

from __future__ import annotations

import gzip
import io

import pytest
from PIL import Image

from ramflow.audit.bytes import extension, not_an_image

PAGE = "<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body>no</body></html>"


@pytest.mark.parametrize(
    "data",
    [
        PAGE.encode(),
        PAGE.upper().encode(),
        b"\n\n  <html lang='en'>",
        b"\xef\xbb\xbf" + PAGE.encode(),
        PAGE.encode("utf-16"),
        b"<!-- cached -->\n<html>",
        b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<html>",
        b"<head><meta charset=utf-8>",
        b"<script>location='/login'</script>",
    ],
)
def test_web_pages_are_known(data):
    check, detail = not_an_image(data)
    assert check == "images.html" and detail.startswith("<") and detail.isprintable()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><title>x</title></svg>', "an SVG drawing"),
        (b"<svg viewBox='0 0 1 1'><title>x</title></svg>", "an SVG drawing"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"message": "Too many requests"}', "JSON"),
        (b'[{"id": 1}]', "JSON"),
        (b"%PDF-1.7\n", "a PDF document"),
        (gzip.compress(b"x"), "a gzip file"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "a HEIC image"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00", "a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a pointer of Git LFS"),
        (b"\x00" * 5000, "nothing but zeros"),
        (b"Not Found", "starts with b'Not Found'"),
        (b"see <htmlish> and a < b", "starts with b'see <htmlish> an'"),
    ],
)
def test_other_files_are_named(data, what):
    assert not_an_image(data) == ("images.not_an_image", what)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000"])
def test_an_image_whose_header_cannot_be_read_is_damaged(image_format):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, image_format)
    check, detail = not_an_image(buffer.getvalue()[:16])
    assert check == "images.truncated" and image_format in detail


@pytest.mark.parametrize(
    ("name", "image_format"),
    [
        ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.jpe", "JPEG"), ("a.jfif", "JPEG"), ("a.jpg", "MPO"),
        ("a.mpo", "MPO"), ("a.png", "PNG"), ("a.tif", "TIFF"), ("a.webp", "WEBP"), ("a.jp2", "JPEG2000"), ("a", "GIF"),
        ("x/.hidden", "PNG"),
        ("St. Moritz", "PNG"), ("flickr.com/123_large", "JPEG"), ("a.jpg_640x480", "PNG"),
    ],
)  # fmt: skip
def test_names_that_fit_or_say_nothing(name, image_format):
    assert extension(name, image_format) == []


@pytest.mark.parametrize(
    ("name", "image_format"),
    [("a.jpg", "PNG"), ("a.PNG", "JPEG"), ("a.gif", "WEBP"), ("a.heic", "JPEG"), ("a.svg", "PNG")],
)
def test_names_that_do_not_fit(name, image_format):
    [(check, detail)] = extension(name, image_format)
    assert check == "images.extension" and detail == f"{name[1:].lower()} holds {image_format}"
