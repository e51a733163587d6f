"""The forward pass of timm's Swin over its own modules, keeping little for the backward pass.

Layers, parameters and random draws are timm's; ``fused.py`` and ``window_attention.py`` hold what differs. For every
number of the residual stream a block keeps 13: two normalised inputs, query, key, value, and four each of the hidden
layer before and after GELU. It keeps 9 where GELU is computed again, and 1 where the whole block is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ramflow.model.execution import Execution
from ramflow.model.fused import gelu_linear, norm_linear
from ramflow.model.window_attention import projected_attention


def supports(swin: nn.Module) -> bool:
    """Whether every layer is one that this forward pass knows: layer norms with weights, GELU, no dropout."""
    for name, module in swin.named_modules():
        role = name.rpartition(".")[2]
        if isinstance(module, nn.Dropout) and module.p > 0:
            return False
        if role == "act" and not (isinstance(module, nn.GELU) and module.approximate == "none"):
            return False
        plain = isinstance(module, nn.LayerNorm) and module.weight is not None and module.bias is not None
        if role in ("norm1", "norm2") and not plain:
            return False
    return True


def features(swin: Any, images: Tensor, execution: Execution) -> Tensor:
    """What timm's ``forward_features`` gives [batch, height, width, channels]."""
    every = execution.recompute == "blocks"
    x = _again(every, swin.patch_embed, images)
    autocast = torch.is_autocast_enabled(images.device.type)
    stream = execution.residual if autocast else x.dtype
    for number, stage in enumerate(swin.layers):
        if not isinstance(stage.downsample, nn.Identity):
            x = _again(every, merge, stage.downsample, x)
        x = x.to(stream)
        again = every or (execution.recompute == "selective" and number == 0)
        keep = again or execution.recompute == "none"
        for block in stage.blocks:
            drops = [path_drops(path, x) for path in (block.drop_path1, block.drop_path2)]
            x = _again(again, run_block, block, x, *drops, keep)
    return swin.norm(x.to(swin.norm.weight.dtype))


def run_block(block: Any, x: Tensor, drop1: Tensor | None, drop2: Tensor | None, keep: bool) -> Tensor:
    """A Swin block.

    Args:
        block: timm's ``SwinTransformerBlock``.
        x: residual stream [batch, height, width, channels].
        drop1: factor of the attention's branch [batch, 1, 1, 1]; nothing for 1.
        drop2: likewise of the feed-forward branch.
        keep: keep GELU's output.
    """
    x = _add(x, _attention_branch(block, x), drop1)
    hidden = norm_linear(x, block.norm2, block.mlp.fc1)
    return _add(x, gelu_linear(hidden, block.mlp.fc2, keep), drop2)


def merge(layer: Any, x: Tensor) -> Tensor:
    """Patch merging: [batch, height / 2, width / 2, 2 x channels] of [batch, height, width, channels], rounded up."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
    return norm_linear(x, layer.norm, layer.reduction)


def path_drops(path: nn.Module, x: Tensor) -> Tensor | None:
    """Factors of a branch by image [batch, 1, 1, 1]: 0 where it is dropped (stochastic depth, arXiv 1603.09382)."""
    if not (isinstance(path, DropPath) and path.training and path.drop_prob):
        return None
    keep = 1 - path.drop_prob
    drops = x.new_empty(len(x), 1, 1, 1).bernoulli_(keep)
    return drops.div_(keep) if keep > 0 and path.scale_by_keep else drops


def _attention_branch(block: Any, x: Tensor) -> Tensor:
    """Norm, windows, attention, and back. Norm and linear layer are by token, so windows may be cut before them, except
    where windows stand out over the image: what is added there is zero after the norm."""
    height, width = x.shape[1:3]
    window, shift = block.window_size, block.shift_size
    below, right = -height % window[0], -width % window[1]
    padded = bool(below or right)
    x = F.pad(_rolled(block.norm1(x), shift, -1), (0, 0, 0, right, 0, below)) if padded else _rolled(x, shift, -1)
    mask = block.get_attn_mask(x) if block.dynamic_mask else block.attn_mask
    windows = window_partition(x, window).flatten(1, 2)
    qkv = block.attn.qkv(windows) if padded else norm_linear(windows, block.norm1, block.attn.qkv)
    out = projected_attention(qkv, block.attn, mask).unflatten(1, window)
    out = window_reverse(out, window, height + below, width + right)[:, :height, :width]
    return _rolled(out, shift, 1)


def _rolled(x: Tensor, shift: tuple[int, int], sign: int) -> Tensor:
    return torch.roll(x, (sign * shift[0], sign * shift[1]), (1, 2)) if any(shift) else x


def _add(x: Tensor, branch: Tensor, drops: Tensor | None) -> Tensor:
    """The stream with a branch added, in the stream's type."""
    return x + (branch if drops is None else branch * drops).to(x.dtype)


def _again(again: bool, function: Any, *arguments: Any) -> Tensor:
    """The function's value; with ``again`` only its arguments are kept, and the backward pass calls it once more."""
    if not torch.is_grad_enabled() or not (again or torch.compiler.is_compiling()):
        return function(*arguments)
    choice: dict[str, Any] = {} if again else {"context_fn": _products}
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **choice)


def _product_or_not(_context: Any, operation: Any, *_arguments: Any, **_named: Any) -> CheckpointPolicy:
    aten = torch.ops.aten
    products = (aten.mm.default, aten.addmm.default, aten.convolution.default)
    return CheckpointPolicy.MUST_SAVE if operation in products else CheckpointPolicy.PREFER_RECOMPUTE


_products = partial(create_selective_checkpoint_contexts, _product_or_not)
"""For the compiler: keep what linear layers give. Left to itself it keeps all that the backward pass computes again."""
