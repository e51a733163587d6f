"""Inputs of the train stage in miniature: a random CLIP, embeddings, and an attested encoder, each with its verdict."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from ramflow.data.dataset import Dataset
from ramflow.data.vectors import TagEmbeddings, write_caption_vectors
from ramflow.model.encoder import Swin
from ramflow.settings import AugmentSettings, HeadSettings, TrainSettings
from ramflow.verdict import Verdict
from ramflow.weights.attest import Attestation, EncoderIdentity, tensor_digests

WIDTH = 16
ENCODER = "swin_tiny_patch4_window7_224"
OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}


def settings(**changes) -> TrainSettings:
    """Six steps of four images; ``changes`` replace single settings."""
    small = {
        "epochs": 2,
        "batch": 4,
        "precision": "float32",
        "device": "cpu",
        "learning_rate": 0.001,
        "learning_rate_rule": "constant",
        "warmup_steps": 2,
        "validate_every": 3,
        "checkpoint_every": 2,
        "log_every": 1,
        "monitor_every": 1,
        "workers": 0,
        "head": HeadSettings(hidden=16, layers=1, heads=2, feed_forward=32),
        "augment": AugmentSettings(min_scale=0.5),
    }
    return TrainSettings(**{**small, **changes})


def write_clip(directory: Path, size: int = 32) -> Path:
    """A random CLIP in transformers layout, of ``size`` pixels, 16 wide."""
    torch.manual_seed(5)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 64, "max_position_embeddings": 8},
        vision_config={**tower, "image_size": size, "patch_size": 16},
        projection_dim=WIDTH,
    )
    CLIPModel(config).save_pretrained(directory)
    crop = {"height": size, "width": size}
    CLIPImageProcessor(size={"shortest_edge": size}, crop_size=crop).save_pretrained(directory)
    return directory


def write_embed(directory: Path, dataset: Dataset) -> Path:
    """Random unit vectors for every tag (two descriptions, the second missing for tag 0) and caption."""
    directory.mkdir()
    random = torch.Generator().manual_seed(6)
    tags = torch.nn.functional.normalize(torch.randn(len(dataset.tags), 2, WIDTH, generator=random), dim=-1)
    mask = torch.ones(len(dataset.tags), 2, dtype=torch.bool)
    mask[0, 1], tags[0, 1] = False, 0
    TagEmbeddings(tags, mask, dataset.tags.digest, {"type": "random"}).write(directory)
    counts = dataset.manifest["captions"].list.len().to_list()
    texts = dataset.manifest["captions"].explode().to_list()
    vector_of = {text: torch.nn.functional.normalize(torch.randn(WIDTH, generator=random), dim=0) for text in texts}
    write_caption_vectors(directory, torch.stack([vector_of[text] for text in texts]).half(), counts)
    Verdict("embed", inputs={"data": dataset.digest}).write(directory)
    return directory


def damage(dataset: Dataset, sample: int) -> None:
    """Fill the second half of an image up with zeros, as a broken download leaves it."""
    row = dataset.manifest.row(sample, named=True)
    with (dataset.directory / row["shard"]).open("r+b") as file:
        file.seek(row["offset"] + row["length"] // 2)
        file.write(bytes(row["length"] - row["length"] // 2))


def write_verify(directory: Path) -> Path:
    """A random encoder, attested as if it were pretrained."""
    directory.mkdir()
    torch.manual_seed(7)
    encoder = Swin(ENCODER, OPTIONS)
    state = encoder.swin.state_dict()
    save_file(state, directory / "encoder.safetensors")
    identity = EncoderIdentity(
        ENCODER, OPTIONS, encoder.image_size, encoder.width, list(encoder.mean), list(encoder.std)
    )
    Attestation({"file": "random"}, identity, {}, tensor_digests(state), {}).write(directory)
    Verdict("verify").write(directory)
    return directory
