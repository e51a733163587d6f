"""The inputs of the train stage, and runs of it, made once."""

from pathlib import Path

import pytest

from ramflow.data.dataset import Dataset
from ramflow.stage import execute
from ramflow.stages import STAGES
from tests.train import artifacts

TRAIN = next(stage for stage in STAGES if stage.name == "train")


@pytest.fixture(scope="session")
def inputs(tiny_data, tiny_audit, tmp_path_factory) -> dict[str, str]:
    """Paths of all inputs of the train stage, by name."""
    root = tmp_path_factory.mktemp("inputs")
    paths = {
        "data": tiny_data,
        "audit": tiny_audit,
        "embed": artifacts.write_embed(root / "embed", Dataset(tiny_data)),
        "verify": artifacts.write_verify(root / "verify"),
        "clip": artifacts.write_clip(root / "clip"),
    }
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("trained") / "train"
    assert execute(TRAIN, artifacts.settings(), inputs, str(out)).passed
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where checkpoints go."""
    return tmp_path / "checkpoints"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that checkpoints hold the length of."""
    return tmp_path / "metrics.jsonl"
