"""The frozen CLIP image encoder whose feature the class token learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AltCLIPModel,
    AutoConfig,
    AutoImageProcessor,
    ChineseCLIPModel,
    CLIPModel,
    MetaClip2Model,
)

from ramflow.errors import UserError
from ramflow.model.preprocessing import Preprocessing
from ramflow.weights.clip import load_clip, one_line

KINDS: dict[str, Any] = {
    "clip": CLIPModel,
    "metaclip_2": MetaClip2Model,
    "chinese_clip": ChineseCLIPModel,
    "altclip": AltCLIPModel,
}
"""Model types of transformers that hold an image half: those of the text encoder, whole."""

IMAGE_HALF = ("vision_model.", "visual_projection.")


class Teacher(nn.Module):
    """CLIP's image half, in inference mode; its input is the student's crop at its own size and normalisation."""

    def __init__(self, clip: Path, precision: torch.dtype | None = None) -> None:
        """Load a CLIP in transformers layout; no code in its folder is run.

        Args:
            clip: the folder.
            precision: of matrix products. Where it is not given: bfloat16 on a GPU (float16 on one without), whose
                range is that of float32, so that no CLIP overflows; float32 on the CPU.

        Raises:
            UserError: it is no CLIP, its weights want to run code, or a weight of its image half is missing.
        """
        super().__init__()
        with one_line(clip):
            config: Any = AutoConfig.from_pretrained(clip, trust_remote_code=False)
            if config.model_type not in KINDS:
                raise UserError(
                    f"{clip} is a {config.model_type} model, which is no teacher of images here: give a whole CLIP of "
                    f"one of the types {', '.join(KINDS)}"
                )
            model, info = load_clip(KINDS[config.model_type], clip)
            processor: Any = AutoImageProcessor.from_pretrained(clip, trust_remote_code=False)
        absent = sorted(key for key in map(str, info["missing_keys"]) if key.startswith(IMAGE_HALF))
        if absent:
            raise UserError(f"{clip} lacks {len(absent)} weights of its image half, first {absent[0]}: fetch it again")
        model.set_attn_implementation("sdpa")
        self.tower = model.vision_model.eval().requires_grad_(False)
        self.projection = model.visual_projection.eval().requires_grad_(False)
        self.precision = precision
        self.width: int = model.config.projection_dim
        self.preprocessing = Preprocessing(
            model.config.vision_config.image_size, tuple(processor.image_mean), tuple(processor.image_std)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image features, not normalised, float32 [batch, width], of uint8 pixels [batch, 3, size, size]."""
        precision = self.precision or _precision(pixels.device)
        with torch.inference_mode(), torch.autocast(pixels.device.type, precision, precision != torch.float32):
            pooled = self.tower(pixel_values=self.preprocessing.normalise(pixels)).pooler_output
            features: torch.Tensor = self.projection(pooled).float()
        return features.clone()  # a tensor that autograd may keep


def _precision(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
