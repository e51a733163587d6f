"""The tiny encoder's tensors under the names of every family that ramflow reads."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.weights.conftest import fresh

State = dict[str, Tensor]

BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
NEW_BLOCK = BLOCK | {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
OUTSIDE = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "patch_embed.norm": "embeddings.norm",
           "norm": "layernorm", "head.fc": "classifier"}  # fmt: skip


def microsoft(state: State) -> State:
    """The public Swin's layout: downsample in the stage before, computed buffers saved, a head of two tensors."""
    body = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    renamed = {key.replace("layers.1.downsample", "layers.0.downsample"): tensor for key, tensor in body.items()}
    head = {"head.weight": state["head.fc.weight"], "head.bias": state["head.fc.bias"]}
    return {**renamed, **dict(fresh(0).swin.named_buffers()), **head}


def old_timm(state: State) -> State:
    """timm's before 0.9: Microsoft's names; later files of this layout have the head's new name."""
    moved = microsoft(state)
    return {key.replace("head.", "head.fc."): tensor for key, tensor in moved.items()}


def hugging_face(state: State, new: bool = False) -> State:
    """transformers' SwinForImageClassification, names as its files have them, or as its version 5 has in memory."""
    result: State = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        if module in OUTSIDE:
            result[("" if module == "head.fc" else "swin.") + f"{OUTSIDE[module]}.{leaf}"] = tensor
            continue
        if "downsample" in module:
            result[f"swin.encoder.{key.replace('layers.1', 'layers.0')}"] = tensor
            continue
        block, name = "swin.encoder." + ".".join(module.split(".")[:4]), ".".join(module.split(".")[4:])
        if name == "attn.qkv":
            names = ("q_proj", "k_proj", "v_proj") if new else ("self.query", "self.key", "self.value")
            parts = zip(names, tensor.chunk(3), strict=True)
            result |= {f"{block}.attention.{part}.{leaf}": values.clone() for part, values in parts}
        elif name == "attn":
            result[f"{block}.attention.{'relative_position_bias' if new else 'self'}.{leaf}"] = tensor
        else:
            result[f"{block}.{(NEW_BLOCK if new else BLOCK)[name]}.{leaf}"] = tensor
    return result


def bare_hugging_face(state: State) -> State:
    """transformers' SwinModel: the same without the class head and its prefix."""
    body = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    return {key.removeprefix("swin."): tensor for key, tensor in hugging_face(body).items()}


def upstream(state: State, **others: Tensor) -> State:
    """A public checkpoint's state dict: the encoder without its head, and ``others``."""
    body = {k: t for k, t in microsoft(state).items() if not k.startswith("head.")}
    return {**{f"visual_encoder.{key}": tensor for key, tensor in body.items()}, **others}


def ram_plus(state: State) -> State:
    """RAM++."""
    head = {"tagging_head.encoder.layer.0.output.dense.weight": torch.ones(4, 4), "image_proj.weight": torch.ones(2)}
    return upstream(state, label_embed=torch.ones(6, 4), reweight_scale=torch.tensor(2.6), **head)


def ram(state: State) -> State:
    """RAM, with its two text models."""
    text = {f"{model}.embeddings.word_embeddings.weight": torch.ones(9, 4) for model in ("tag_encoder", "text_decoder")}
    return upstream(state, label_embed=torch.ones(6, 4), **text)


def tag2text(state: State) -> State:
    """Tag2Text, whose tag embeddings are learnt."""
    head = {"label_embed.weight": torch.ones(6, 4), "fc.W": torch.ones(1, 6, 4), "fc.b": torch.ones(6)}
    return upstream(state, **head)


def ramflow_model(state: State) -> State:
    """``model.safetensors`` of ramflow's train stage."""
    body = {f"encoder.swin.{k}": t for k, t in state.items() if not k.startswith("head.")}
    return {**body, "head.project.weight": torch.ones(4, 4), "reweighting.scale": torch.tensor(2.6)}


def wrapped(state: State) -> State:
    """Saved from inside data parallelism."""
    return {f"module.{key}": tensor for key, tensor in state.items()}
