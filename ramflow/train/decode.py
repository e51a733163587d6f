"""Decoding for training: libjpeg-turbo for ordinary JPEG files, and Pillow for all others and for all doubt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg

from ramflow.data.images import MAX_PIXELS, decode_rgb

JPEG = b"\xff\xd8\xff"
COLOURS = ("YCbCr", "Gray", "RGB")
"""Not CMYK: printers' inks are Pillow's."""

Pixels = npt.NDArray[np.uint8]
"""[height, width, 3], RGB."""


def decode_pixels(data: bytes) -> Pixels:
    """Every pixel of an image, as :func:`ramflow.data.images.decode_rgb` decodes it, in less time.

    Raises:
        ImageFault: ``empty``, ``not_an_image``, ``too_large`` or ``truncated`` (cut off or damaged).
    """
    if data.startswith(JPEG):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if height * width <= MAX_PIXELS and colours in COLOURS:
                return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:  # it is strict: any complaint of the decoder; Pillow, as the audit, says what it comes to
            pass
    return np.array(decode_rgb(data))
