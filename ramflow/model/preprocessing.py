"""One preprocessing for training, evaluation and use, saved with the model (F16)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FILE_NAME = "preprocessing.json"


@dataclass(frozen=True)
class Preprocessing:
    """Size in pixels, and the mean and deviation a channel, of images in 0..1 that an encoder expects."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resize(self, image: Image.Image) -> Image.Image:
        """The whole image at the encoder's size, aspect not kept, as upstream does when it evaluates."""
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float images of uint8 pixels, both [batch, 3, size, size]."""
        assert pixels.shape[-2:] == (self.size, self.size), f"{tuple(pixels.shape)} is not {self.size} pixels"
        images = pixels.float() / 255
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images - mean) / std

    def write(self, directory: Path) -> None:
        """Write ``preprocessing.json``."""
        (directory / FILE_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read ``preprocessing.json``."""
    content = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
    return Preprocessing(content["size"], tuple(content["mean"]), tuple(content["std"]))


def to_pixels(image: Image.Image) -> torch.Tensor:
    """uint8 pixels [3, height, width] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
