"""A tiny Swin that was really trained, on the shared pictures of shapes, and the verify stage over any file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing, to_pixels
from ramflow.settings import VerifySettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.verdict import Verdict
from tests.conftest import COLOURS, SHAPES, draw

NAME = "swin_tiny_patch4_window7_224"
OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
VERIFY = next(stage for stage in STAGES if stage.name == "verify")
STEPS = 40

State = dict[str, Tensor]


def fresh(seed: int) -> Swin:
    """The tiny encoder as timm initialises it."""
    torch.manual_seed(seed)
    return Swin(NAME, OPTIONS).eval()


@pytest.fixture(scope="session")
def trained() -> Swin:
    """The tiny encoder after 40 steps of telling shapes and colours apart, moved about, mirrored and tinted."""
    encoder = fresh(0).train()
    head = torch.nn.Linear(encoder.width, len(SHAPES) * len(COLOURS))
    preprocessing = Preprocessing(encoder.image_size, encoder.mean, encoder.std)
    pictures = [draw(shape, colour, n) for n in range(4) for shape in SHAPES for colour in COLOURS]
    images = preprocessing.normalise(torch.stack([to_pixels(preprocessing.resize(picture)) for picture in pictures]))
    kinds = torch.arange(len(SHAPES) * len(COLOURS)).repeat(4)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for step in range(STEPS):
        top, left = torch.randint(0, 6, (2,)).tolist()
        batch = functional.pad(images, (3, 3, 3, 3), mode="replicate")[:, :, top : top + 32, left : left + 32]
        batch = (batch.flip(-1) if step % 2 else batch) + 0.5 * torch.randn(len(batch), 3, 1, 1)
        loss = functional.cross_entropy(head(encoder(batch)[:, 0]), kinds)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval()


@pytest.fixture
def state(trained: Swin) -> State:
    """Its tensors under timm's names, with a classification head, to change at will."""
    tensors = {key: tensor.clone() for key, tensor in trained.swin.state_dict().items()}
    return {**tensors, "head.fc.weight": torch.ones(6, 32), "head.fc.bias": torch.zeros(6)}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[State], Path]:
    """``save(state)``: a safetensors file of it."""

    def write(tensors: State) -> Path:
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(tensors, path)
        return path

    return write


@pytest.fixture
def verify(tmp_path: Path) -> Callable[..., Verdict]:
    """``verify(file, data=..., out=..., **settings)``: run the stage as the command line does, below ``tmp_path``."""

    def run(weights: Path, data: Path | None = None, out: str = "out", enforce: bool = False, **settings) -> Verdict:
        inputs = {"weights": str(weights), **({"data": str(data)} if data else {})}
        chosen = VerifySettings(**{"encoder": NAME, "encoder_options": OPTIONS, **settings})
        return execute(VERIFY, chosen, inputs, str(tmp_path / out), enforce=enforce)

    return run
