"""The command: what it is given wrong, in one line, and ramflow's own artifacts."""

from __future__ import annotations

import json
import pickle
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ramflow
from ramflow.cli import main
from ramflow.doctor.ranking import ORDER
from tests.doctor.conftest import FULL, annotations, tag_list

INPUTS = ("log", "checkpoint", "weights", "tags", "embeddings", "annotations")


class Evil:
    """A pickle that wants to run code."""

    def __reduce__(self):
        return (print, ("ran",))


def refused(capsys, *arguments):
    assert main(["doctor", *map(str, arguments)]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.strip().splitlines()) == 1, streams.err
    return streams.err


def test_nothing_given(capsys):
    assert "give any of --log" in refused(capsys)


@pytest.mark.parametrize("name", INPUTS)
def test_no_such_file(capsys, tmp_path, name):
    assert "no such" in refused(capsys, f"--{name}", tmp_path / "none")


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02\xff" * 999, b'[{"image_path": "a.jpg", "cap', b"PK\x03\x04 no zip"]
)
def test_bad_content(capsys, tmp_path, name, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    if name == "tags" and content.startswith((b"[", b"PK")):
        return  # any text is a list of names
    assert str(path) in refused(capsys, f"--{name}", path)


@pytest.mark.parametrize("name", ["checkpoint", "weights", "embeddings"])
def test_a_pickle_that_runs_code(capsys, tmp_path, name):
    path = tmp_path / "evil.pth"
    torch.save({"model": Evil()}, path)
    assert "ran" not in refused(capsys, f"--{name}", path).split()
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    refused(capsys, f"--{name}", path)


def test_the_wrong_kind_of_weights(capsys, tmp_path, swin, small):
    assert "give it as --weights" in refused(capsys, "--checkpoint", swin)
    torch.save({"a": torch.zeros(3, 3)}, tmp_path / "other.pth")
    refused(capsys, "--checkpoint", tmp_path / "other.pth")
    refused(capsys, "--embeddings", swin)


def test_a_cut_checkpoint(capsys, tmp_path, small):
    data = small().checkpoint.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    assert "cut" in refused(capsys, "--checkpoint", tmp_path / "cut.pth")
    with zipfile.ZipFile(tmp_path / "no_torch.pth", "w") as archive:
        archive.writestr("a.txt", "b")
    refused(capsys, "--checkpoint", tmp_path / "no_torch.pth")


def test_cut_annotations(capsys, tmp_path):
    path = annotations(tmp_path / "train.json", FULL, FULL.index, images=20)
    path.write_text(path.read_text()[:-30])
    assert "cut off" in refused(capsys, "--annotations", path)


def test_full_tags_alone(capsys, tmp_path):
    full = tag_list(tmp_path / "full.txt", FULL)
    log = tmp_path / "log.txt"
    log.write_text('{"train_loss_tag": "3.0", "epoch": 0}\n')
    assert "give --tags too" in refused(capsys, "--log", log, "--full-tags", full)


def test_ramflows_own_run(capsys, tmp_path, base):
    """The output of the train stage, as log and as checkpoint: it is said what it is."""
    model = {f"encoder.swin.{key}": value for key, value in base.swin.state_dict().items()}
    model |= {"reweighting.scale": torch.tensor(2.6), "head.logit.bias": torch.zeros(1)}
    (tmp_path / "model").mkdir()
    save_file(model, tmp_path / "model" / "model.safetensors")
    figures = {"learning_rate": 1e-3, "loss_alignment": 1.0, "loss_distillation": 0.2, "distillation_relative": 0.7}
    rows = [{"step": s, "epoch": 0, "kind": "train", "loss_tag": 9.0 - s / 10, **figures} for s in range(60)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["doctor", "--log", str(tmp_path), "--checkpoint", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "metrics.jsonl: ramflow's own" in text and "model.safetensors: ramflow" in text
    assert text.startswith("Nothing found wrong")


def test_help_is_quick(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--help"])
    assert stopped.value.code == 0
    assert "--full-tags" in capsys.readouterr().out


def test_every_finding_has_a_rank_and_a_line_in_the_docs():
    root = Path(ramflow.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in (root / "doctor").glob("*.py"))
    used = set(re.findall(r'(?:Finding|_finding)\(\s*"([a-z]+\.[a-z_]+)"', source))
    assert used == set(ORDER)
    described = (root.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert all(f"`{id}`" in described for id in ORDER)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_logs_are_read_or_refused(failed, tmp_path, seed):
    """Cut and overwritten anywhere: a case or one line, never a crash."""
    rng = random.Random(seed)
    data = bytearray((failed.console if seed % 2 else failed.log).read_bytes())
    for _ in range(rng.randrange(1, 30)):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(4)] = rng.choice([b"nan", b"\xff", b"{", b"9e9999", b"\r", b"\n", b'"', b"-"])
    path = tmp_path / "log.txt"
    path.write_bytes(data[: rng.randrange(1, len(data))])
    assert main(["doctor", "--log", str(path)]) in (0, 2)
