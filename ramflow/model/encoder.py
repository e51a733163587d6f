"""The image encoder: a Swin transformer of timm, in timm's own key layout, without its classification head."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from ramflow.errors import UserError
from ramflow.model import lean_swin
from ramflow.model.execution import Execution


class Swin(nn.Module):
    """A timm Swin that gives tokens: their mean in front as the class token, then one a patch.

    Parameters live under ``swin.`` with timm's names, so that a state dict of timm's model is this one's. ``execution``
    may be set at any time: it changes memory and time, not what is computed. ``compile()`` of ``nn.Module`` compiles
    the encoder in place; names stay.
    """

    def __init__(self, name: str, options: dict[str, Any], drop_path: float = 0.0) -> None:
        """Create the encoder with fresh weights from torch's random stream.

        Args:
            name: timm name, ``swin_*``.
            options: timm options that differ from the name's, such as ``img_size`` or ``embed_dim``.
            drop_path: stochastic depth.

        Raises:
            UserError: timm has no such Swin, or refuses the options.
        """
        super().__init__()
        if not name.startswith("swin_") or not timm.is_model(name):
            raise UserError(f"encoder {name!r} is not a Swin that timm knows: timm.list_models('swin_*') lists them")
        lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        try:
            swin: Any = timm.create_model(name, pretrained=False, num_classes=0, drop_path_rate=drop_path, **lists)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(f"encoder {name} with options {options}: timm refuses: {error}") from None
        self.swin = swin
        self.execution = Execution()
        self._fusible = lean_swin.supports(swin)
        size = swin.patch_embed.img_size
        self.image_size: int = size[0] if isinstance(size, (tuple, list)) else size
        self.width: int = swin.num_features
        config = swin.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [batch, 1 + patches, width] of normalised images [batch, 3, size, size], as ``execution`` says."""
        swin: Any = self.swin
        if self.execution.fused and self._fusible:
            features = lean_swin.features(swin, images, self.execution)
        else:
            features = swin.forward_features(images)
        tokens: torch.Tensor = features.flatten(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
