"""Which Swin a file's shapes are: width, depths and window, and timm's name for them where it has one."""

from __future__ import annotations

import re
from collections import Counter

from ramflow.weights.families import PATCHES, TABLE
from ramflow.weights.formats import WeightsFile
from ramflow.weights.interpolate import window_of

DEEP = (2, 2, 18, 2)
SIZES: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny", (96, DEEP): "small", (128, DEEP): "base", (192, DEEP): "large",
}  # fmt: skip
IMAGE_OF_WINDOW = {7: 224, 12: 384}


def describe(file: WeightsFile) -> str:
    """The Swin that a file holds, in a few words; empty where its shapes tell none."""
    width, window = 0, None
    blocks: Counter[int] = Counter()
    for key in file.keys:
        place = file.place(key)
        if place is None:
            continue
        if place.key == PATCHES:
            width = file.shape(key)[0]
        elif match := re.fullmatch(rf"layers\.(\d+)\.blocks\.\d+\.{re.escape(TABLE)}", place.key):
            blocks[int(match[1])] += 1
            window = window or window_of(file.shape(key)[0])
    depths = tuple(blocks[stage] for stage in sorted(blocks))
    if not (width and depths and window):
        return ""
    name = SIZES.get((width, depths))
    if name and window in IMAGE_OF_WINDOW:
        return f"swin_{name}_patch4_window{window}_{IMAGE_OF_WINDOW[window]}"
    return f"a Swin of width {width}, depths {'-'.join(map(str, depths))}, window {window}"
