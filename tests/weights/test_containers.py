"""Damaged, hostile and lying files are refused in one line, before anything runs or memory is spent."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import sys
import time
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramflow.errors import UserError
from ramflow.weights.containers import container_of, load_torch, open_safetensors, write_safetensors
from ramflow.weights.formats import read_weights
from ramflow.weights.pickles import MAX_PICKLE, examine
from ramflow.weights.stand_ins import Settings
from tests.weights.test_formats import checkpoint, old_pickle

SPENT = 64 << 20
"""Bytes of memory that refusing a file may take: far under what each bomb here would."""


@pytest.fixture
def refused(tmp_path):
    """``refused(path, message)``: the file is refused in one line, quickly, and in little memory."""

    def check(path: Path, message: str) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here
        before, start = memory("VmRSS"), time.monotonic()
        with pytest.raises(UserError, match=message) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
        assert memory("VmHWM") - before < SPENT
        assert time.monotonic() - start < 5

    return check


def memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def rewrite(path: Path, change=lambda name, data: data, compression=zipfile.ZIP_STORED) -> Path:
    """A copy of a torch zip, each member changed."""
    out = path.with_name("rewritten")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return out


def with_pickle(path: Path, data: bytes) -> Path:
    """A torch zip whose data.pkl is ``data``."""
    torch.save({"a": torch.ones(4)}, path)
    return rewrite(path, lambda name, old: data if name.endswith("data.pkl") else old)


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


DAMAGE = {
    "cut safetensors": (save_file, cut),
    "cut header": (save_file, lambda data: data[:60]),
    "longer safetensors": (save_file, lambda data: data + b"more"),
    "cut zip": (torch.save, cut),
    "cut zip directory": (torch.save, lambda data: data[:-30]),
    "a flipped byte": (torch.save, flipped),
    "cut old pickle": (old_pickle, cut),
    "cut in the old pickle's start": (old_pickle, lambda data: data[:100]),
    "a page": (save_file, lambda data: b"<html>404 not found</html>"),
    "nothing": (save_file, lambda data: b""),
    "two bytes": (save_file, lambda data: b"PK"),
    "noise": (save_file, lambda data: b"\x80\x02" + bytes(256)),
}


@pytest.mark.parametrize(("write", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_line(state, tmp_path, refused, write, damage):
    path = tmp_path / "file"
    write(state, path)
    read_weights(path)
    path.write_bytes(damage(path.read_bytes()))
    refused(path, r"file is damaged.*fetch it again")


class Command:
    """What unpickles by running a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_named(state, tmp_path, refused, zipped):
    content = {"model": state, "config": Command(f"touch {tmp_path / 'ran'}")}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "file", r"file is refused.*posix\.system, which could run code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_refused_and_named(tmp_path, refused, protocol):
    (tmp_path / "file").write_bytes(pickle.dumps({"config": Command(f"touch {tmp_path / 'ran'}")}, protocol))
    refused(tmp_path / "file", r"file is refused.*posix\.system")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wanted",
    ["builtins eval", "builtins getattr", "torch.hub load", "builtins bytearray", "torch Tensor", "numpy load"],
)
def test_nothing_is_called_but_what_is_listed(tmp_path, refused, wanted):
    """Neither code, nor what torch's own reader would call to reserve any amount of memory."""
    call = f"c{wanted.replace(' ', chr(10))}\n".encode() + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R."
    refused(with_pickle(tmp_path / "file", b"\x80\x02" + call), rf"refused.*{wanted.replace(' ', '.')}, which could")


def test_settings_beside_the_tensors_are_read_as_mappings(state, tmp_path):
    checkpoint(state, tmp_path / "file")
    content = load_torch(tmp_path / "file")
    assert content["epoch"] == 3
    assert isinstance(content["config"], Settings)
    assert not isinstance(content["config"], argparse.Namespace)
    assert content["config"]["lr"] == 1e-4
    assert content["config"]["opt"] == OrderedDict(eps=1e-8)


def invented(name: str, base: type) -> type:
    """A class as another library has it, importable while the test runs."""
    module, _, short = name.rpartition(".")
    made = type(short, (base,), {"__module__": module})
    setattr(sys.modules[module], short, made)
    return made


def test_settings_of_other_libraries_are_read_without_them(tmp_path, monkeypatch):
    """yacs and ruamel are not installed: mappings come as mappings, lists as lists, attributes are left out."""
    for module in ("yacs", "yacs.config", "ruamel", "ruamel.yaml", "ruamel.yaml.comments"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    node, mapping, sequence = (
        invented("yacs.config.CfgNode", dict),
        invented("ruamel.yaml.comments.CommentedMap", OrderedDict),
        invented("ruamel.yaml.comments.CommentedSeq", list),
    )
    settings = node(size=224, swin=node(window=7))
    settings.immutable = True
    depths = sequence([2, 2, 18, 2])
    depths.comment = "L"
    content = {"model": {"a": torch.ones(2)}, "cfg": settings, "yaml": mapping(depths=depths), "path": Path("x")}
    content["counts"] = defaultdict(int, steps=3)
    torch.save(content, tmp_path / "file")
    read = load_torch(tmp_path / "file")
    assert read["cfg"] == {"size": 224, "swin": {"window": 7}}
    assert read["yaml"] == {"depths": [2, 2, 18, 2]}
    assert read["counts"] == {"steps": 3}
    assert not isinstance(read["cfg"], node)


def test_a_compressed_zip_is_refused(tmp_path, refused):
    torch.save({"a": torch.zeros(4 << 20)}, tmp_path / "file")
    bomb = rewrite(tmp_path / "file", compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    refused(bomb, "is refused: .* in it is compressed")


def directory_entries(data: bytes) -> list[int]:
    """Where the entries of a zip's central directory start."""
    found, place = [], data.find(b"PK\x01\x02")
    while place >= 0:
        found.append(place)
        place = data.find(b"PK\x01\x02", place + 4)
    return found


def test_members_larger_than_the_file_are_refused(state, tmp_path, refused):
    torch.save(state, tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    struct.pack_into("<II", data, directory_entries(data)[-3] + 20, 1 << 30, 1 << 30)
    (tmp_path / "file").write_bytes(data)
    refused(tmp_path / "file", "overlaps others or the end")


def test_members_that_overlap_are_refused(state, tmp_path, refused):
    torch.save(state, tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    entries = directory_entries(data)
    data[entries[6] + 42 : entries[6] + 46] = data[entries[5] + 42 : entries[5] + 46]
    (tmp_path / "file").write_bytes(data)
    refused(tmp_path / "file", "overlaps others or the end")


def test_two_members_of_one_name_are_refused(tmp_path, refused):
    torch.save({"a": torch.ones(4)}, tmp_path / "file")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "file", "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")
    refused(tmp_path / "file", "two of one name")


def test_a_huge_pickle_is_refused(tmp_path, refused):
    bomb = with_pickle(tmp_path / "file", b"\x80\x02" + b"]" * MAX_PICKLE + b".")
    refused(bomb, r"its pickle has 4,194,307 bytes, 4,194,304 are allowed")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path, refused):
    """Read whole, this one would have a terabyte; in the file it has four bytes."""
    torch.save({"a": torch.zeros(1).expand(1 << 18, 1 << 20)}, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size < 10_000
    refused(tmp_path / "file", "a tensor of 262144 x 1048576 claims more numbers than the file holds for it")


def test_a_storage_that_is_not_what_the_zip_holds_is_refused(tmp_path, refused):
    torch.save({"a": torch.ones(4)}, tmp_path / "file")
    data = zipfile.ZipFile(tmp_path / "file").read("file/data.pkl")
    longer = data.replace(b"K\x04t", b"J" + struct.pack("<i", 2**31 - 1) + b"t")
    assert longer != data
    refused(with_pickle(tmp_path / "file", longer), "storage 0 is not there or not of 8589934588 bytes")


REPEATED = {
    "a dictionary copied": b"ccollections\nOrderedDict\n(](K\x01K\x02\x86K\x03K\x04\x86etR.",
    "bytes doubled": b"c_codecs\nencode\n(X\x02\x00\x00\x00abX\x03\x00\x00\x00hextR.",
    "a value never stored": b"h\x07.",
    "no end": b"}",
    "a storage that is none": b"(X\x04\x00\x00\x00evilX\x01\x00\x00\x000X\x01\x00\x00\x000K\x01K\x01tQ.",
}


@pytest.mark.parametrize("steps", REPEATED.values(), ids=REPEATED)
def test_a_pickle_that_could_grow_or_is_not_sound_is_refused(tmp_path, refused, steps):
    refused(with_pickle(tmp_path / "file", b"\x80\x02" + steps), "rewritten is (damaged|refused)")


def test_what_torch_does_not_write_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the step EMPTY_SET, which torch\.save does not write"):
        examine(b"\x80\x04\x8f.", tmp_path)


def test_a_torchscript_program_is_refused(tmp_path, refused):
    torch.save({"a": torch.ones(4)}, tmp_path / "file")
    with zipfile.ZipFile(tmp_path / "file", "a") as archive:
        archive.writestr("file/constants.pkl", b"")
        archive.writestr("file/code/model.py", "def forward(self): ...")
    refused(tmp_path / "file", "a TorchScript program")


def test_a_zip_of_something_else_is_refused(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    refused(tmp_path / "file", "not a weights file")


def test_an_old_pickle_that_claims_more_than_the_file_is_refused(tmp_path, refused):
    old_pickle({"a": torch.ones(4)}, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    longer = data.replace(b"K\x04Nt", b"J" + struct.pack("<i", 2**31 - 1) + b"Nt")
    assert longer != data
    (tmp_path / "file").write_bytes(longer)
    refused(tmp_path / "file", "more than the file")


def test_a_huge_old_pickle_is_refused(tmp_path, refused):
    old_pickle({"a": torch.ones(4)}, tmp_path / "file")
    with (tmp_path / "file").open("r+b") as file:
        file.truncate((1 << 30) + 1)
    refused(tmp_path / "file", "more than 1 GiB: save it again")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]}},
        {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"},
        {"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {},
    ],
    ids=["beyond the file", "shape", "overlap", "type", "negative", "nothing named"],
)  # fmt: skip
def test_a_header_that_lies_is_refused(tmp_path, refused, header):
    text = json.dumps(header).encode()
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    refused(tmp_path / "file", "file is (damaged|not a Swin)")


def test_a_header_longer_than_the_file_is_refused(tmp_path, refused):
    (tmp_path / "file").write_bytes((1 << 60).to_bytes(8, "little") + bytes(100))
    refused(tmp_path / "file", "file is damaged")


@pytest.mark.parametrize("start", [b"\x80", b"PK"], ids=["as a pickle", "as a zip"])
def test_a_header_whose_length_looks_like_another_container_is_read(state, tmp_path, start):
    """safetensors start with the length of their header: one in 32 has the byte that starts a pickle."""
    path = tmp_path / "weights.safetensors"

    def length_with(pad: int) -> int:
        save_file(state, path, metadata={"pad": "x" * pad})
        return int.from_bytes(path.read_bytes()[:8], "little")

    wanted = int.from_bytes(start, "little")
    length_with((wanted - length_with(0)) % 256 ** len(start))
    assert path.read_bytes().startswith(start)
    assert container_of(path) == "safetensors"
    assert read_weights(path).keys == sorted(state)


def test_what_is_written_has_the_librarys_bytes(state, tmp_path):
    state["scalar"] = torch.tensor(2.5)
    write_safetensors(tmp_path / "ours", state, {"format": "ramflow"})
    save_file(state, tmp_path / "theirs", metadata={"format": "ramflow"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    read, metadata = open_safetensors(tmp_path / "ours")
    assert metadata == {"format": "ramflow"}
    assert all(torch.equal(tensor, load_file(tmp_path / "ours")[key]) for key, tensor in read.items())
