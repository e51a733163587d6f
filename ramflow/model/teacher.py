"""The frozen CLIP image encoder whose feature the class token learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoImageProcessor, CLIPModel
from transformers.utils import logging

from ramflow.errors import UserError
from ramflow.model.preprocessing import Preprocessing


class Teacher(nn.Module):
    """CLIP's image half, in inference mode; its input is the student's crop at its own size and normalisation."""

    def __init__(self, clip: Path) -> None:
        """Load a CLIP in transformers layout.

        Raises:
            UserError: it is not one, or a weight is missing from it.
        """
        super().__init__()
        transformers_logging: Any = logging
        transformers_logging.disable_progress_bar()
        try:
            whole: Any = CLIPModel
            model, info = whole.from_pretrained(clip, dtype=torch.float32, output_loading_info=True)
            processor: Any = AutoImageProcessor.from_pretrained(clip)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"{clip} is not a CLIP that transformers can read: {error}") from None
        absent = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        if absent:
            raise UserError(f"{clip} lacks {len(absent)} weights, first {absent[0]}: fetch it again")
        self.tower = model.vision_model.eval().requires_grad_(False)
        self.projection = model.visual_projection.eval().requires_grad_(False)
        self.width: int = model.config.projection_dim
        self.preprocessing = Preprocessing(
            model.config.vision_config.image_size, tuple(processor.image_mean), tuple(processor.image_std)
        )

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image features, not normalised, float32 [batch, width], of uint8 pixels [batch, 3, size, size]."""
        pooled = self.tower(pixel_values=self.preprocessing.normalise(pixels)).pooler_output
        features: torch.Tensor = self.projection(pooled)
        return features
