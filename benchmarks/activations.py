"""What the image encoder keeps for the backward pass, an image, in each mode; timm's own forward pass beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_function

if TYPE_CHECKING:
    from torch import Tensor

    from ramflow.model.execution import Execution

ENCODER, SMALL = "swin_large_patch4_window7_224", "swin_tiny_patch4_window7_224"
BATCH = 2
MEBIBYTE = 1 << 20
NOTE = "the public code's encoder keeps 323 MiB in float32"


@dataclass(frozen=True)
class Mode:
    """A way to run the encoder."""

    words: str
    limit: float
    """The most MiB an image that it may keep."""
    choices: Mapping[str, Any]
    """Of :class:`ramflow.model.execution.Execution`; types by name."""
    autocast: bool = False

    def execution(self) -> Execution:
        """The choices as the encoder takes them."""
        import torch

        from ramflow.model.execution import Execution

        return Execution(**{k: getattr(torch, v) if k == "residual" else v for k, v in self.choices.items()})


MODES = {
    "none": Mode("nothing recomputed", 250, {}),
    "selective": Mode("selective recomputation", 140, {"recompute": "selective"}),
    "blocks": Mode("blocks recomputed", 27, {"recompute": "blocks"}),
    "bfloat16": Mode("bfloat16 autocast", 180, {}, autocast=True),
    "bfloat16_residual": Mode("bfloat16 residual stream", 125, {"residual": "bfloat16"}, autocast=True),
}
BASELINES = {
    "timm": Mode("timm", math.inf, {"fused": False}),
    "timm_bfloat16": Mode("timm, bfloat16 autocast", math.inf, {"fused": False}, autocast=True),
}
"""timm's own forward pass. Autocast keeps a copy of every weight too: half of what is counted at batch 2."""


def run(options: Options) -> list[Figure]:
    """MiB an image in every mode, and of timm's forward pass in the same precision; counts, so one round is enough."""
    encoder = ENCODER if options.scale >= 0.01 else SMALL  # the small one says nothing
    found = run_function("benchmarks.activations:measured", encoder, threads=2).result
    result = []
    for name, mode in MODES.items():
        baseline = "timm_bfloat16" if mode.autocast else "timm"
        what = f"saved activations of Swin-L at 224 px, {mode.words}"
        sides = [found[name]], [found[baseline]], BASELINES[baseline].words
        result.append(Figure(f"activations.{name}", what, "MiB an image", *sides, limit=mode.limit, note=NOTE))
    return result


def measured(name: str) -> dict[str, float]:
    """MiB an image by mode."""
    import torch

    from ramflow.model.encoder import Swin

    encoder = Swin(name, {}, drop_path=0.2)
    images = torch.randn(BATCH, 3, encoder.image_size, encoder.image_size)
    result = {}
    for key, mode in (MODES | BASELINES).items():
        encoder.execution = mode.execution()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.autocast):
            kept = saved_bytes(lambda: encoder(images), encoder.parameters(), encoder.buffers())
        result[key] = kept / BATCH / MEBIBYTE
    return result


def saved_bytes(function: Callable[[], Tensor], *excluded: Iterable[Tensor]) -> int:
    """Bytes of the storages that autograd keeps when the function is called, each counted once.

    Args:
        function: gives a tensor that requires gradients.
        excluded: tensors that would be in memory anyway, such as parameters.
    """
    import torch

    known = {tensor.untyped_storage()._cdata for tensors in excluded for tensor in tensors}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())
