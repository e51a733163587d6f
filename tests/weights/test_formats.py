"""Every known layout gives the same tensors; what is no sound weights file is refused in one line."""

from __future__ import annotations

import os
import zipfile

import pytest
import safetensors.torch
import torch

from ramflow.errors import UserError
from ramflow.weights.formats import read_weights
from ramflow.weights.ledger import match_keys
from tests.weights.conftest import NAME, fresh


def microsoft(state):
    """The public Swin's layout: downsample in the stage before, computed buffers saved, a head of two tensors."""
    renamed = {
        key.replace("layers.1.downsample", "layers.0.downsample"): t
        for key, t in state.items()
        if not key.startswith("head.")
    }
    buffers = dict(fresh(0).swin.named_buffers())
    return {**renamed, **buffers, "head.weight": torch.ones(6, 32), "head.bias": torch.zeros(6)}


def old_timm(state):
    return {**microsoft(state), "head.fc.weight": torch.ones(6, 32)}


LAYOUTS = {
    "timm safetensors": (lambda s: s, safetensors.torch.save_file, "timm, safetensors"),
    "timm pth": (lambda s: s, torch.save, "timm, torch"),
    "timm state_dict": (lambda s: {"state_dict": s, "epoch": 3}, torch.save, "timm, torch"),
    "timm legacy": (lambda s: s, lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False), "timm, torch"),
    "timm old": (old_timm, safetensors.torch.save_file, "microsoft, safetensors"),
    "microsoft": (lambda s: {"model": microsoft(s)}, torch.save, "microsoft, torch"),
}


@pytest.mark.parametrize(("layout", "write", "format"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_tensors(state, tmp_path, layout, write, format):
    write(layout(state), tmp_path / "file")
    file = read_weights(tmp_path / "file")
    assert file.source["format"] == format
    ledger, tensors = match_keys(file, fresh(2).swin, NAME)
    assert list(tensors) == list(fresh(2).swin.state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in tensors.items())
    assert len(ledger.loaded) + len(ledger.converted) == len(tensors)
    assert len(ledger.loaded) + len(ledger.converted) + len(ledger.unexpected) == len(file.state)


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


DAMAGE = {
    "cut safetensors": (safetensors.torch.save_file, cut),
    "cut header": (safetensors.torch.save_file, lambda data: data[:60]),
    "longer safetensors": (safetensors.torch.save_file, lambda data: data + b"more"),
    "cut zip": (torch.save, cut),
    "a flipped byte": (torch.save, flipped),
    "cut pickle": (lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False), cut),
    "a page": (safetensors.torch.save_file, lambda data: b"<html>404 not found</html>"),
    "nothing": (safetensors.torch.save_file, lambda data: b""),
}


@pytest.mark.parametrize(("write", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_line(state, tmp_path, write, damage):
    path = tmp_path / "file"
    write(state, path)
    read_weights(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"file is damaged.*fetch it again") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


class Command:
    """What unpickles by running a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_named(state, tmp_path, zipped):
    content = {"model": state, "config": Command(f"touch {tmp_path / 'ran'}")}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"file is refused.*posix\.system") as error:
        read_weights(tmp_path / "file")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(error.value)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    with pytest.raises(UserError, match="not a weights file"):
        read_weights(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list"),
        ({"model": {"a.weight": torch.ones(2), "step": 3}}, "'step' is not a tensor"),
        ({"conv1.weight": torch.ones(2)}, r"not a Swin.*conv1\.weight"),
        ({"model": {}}, "first keys are none"),
    ],
)
def test_other_content_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "file")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "file")


def test_no_file_or_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        read_weights(tmp_path / "none")
    with pytest.raises(UserError, match="a folder, give the file in it"):
        read_weights(tmp_path)
