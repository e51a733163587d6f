"""verify: genuine weights pass whole and exact; random, damaged or misfitting ones do not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ramflow.cli import main
from ramflow.errors import GateRefused, UserError
from ramflow.weights import stage
from ramflow.weights.attest import check_attested, load_encoder, read_attestation
from tests.weights import layouts
from tests.weights.conftest import NAME, OPTIONS, fresh

MATRIX = "layers.0.blocks.1.mlp.fc1.weight"


def failed(verdict):
    return {check.id for check in verdict.checks if not check.passed}


def test_trained_weights_pass(state, save, verify, tiny_data, tmp_path):
    verdict = verify(save(state), tiny_data)
    assert verdict.passed, verdict.failures()
    assert verdict.metrics["images"] == 24
    assert verdict.metrics["ratio"] > 1.2
    written = load_file(tmp_path / "out" / "encoder.safetensors")
    assert sorted(written) == sorted(key for key in state if not key.startswith("head."))
    assert all(torch.equal(tensor, state[key]) for key, tensor in written.items())


def test_the_attestation_says_what_was_loaded(state, save, verify, tmp_path):
    verify(save(state))
    attestation = read_attestation(tmp_path / "out")
    assert attestation.source["file"] == "weights.safetensors"
    assert attestation.source["format"] == "timm, safetensors"
    assert attestation.source["bytes"] == (tmp_path / "weights.safetensors").stat().st_size
    assert attestation.encoder.name == NAME
    assert attestation.encoder.options == OPTIONS
    assert (attestation.encoder.image_size, attestation.encoder.width) == (32, 32)
    assert attestation.ledger["unexpected"] == ["head.fc.bias", "head.fc.weight"]
    assert len(attestation.ledger["loaded"]) == len(attestation.tensors) == len(state) - 2
    encoder = fresh(3)
    with pytest.raises(UserError, match="not the one that verify attested"):
        check_attested(encoder.swin.state_dict(), attestation)
    load_encoder(encoder.swin, tmp_path / "out")
    check_attested(encoder.swin.state_dict(), attestation)


def test_same_file_same_bytes(state, save, verify, tiny_data, tmp_path):
    file = save(state)
    verify(file, tiny_data, out="one")
    verify(file, tiny_data, out="two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_its_own_output_verifies_to_the_same_encoder(state, save, verify, tmp_path):
    verify(save(state), out="one")
    verify(tmp_path / "one" / "encoder.safetensors", out="two")
    one, two = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert read_attestation(tmp_path / "two").source["format"] == "ramflow, safetensors"


def test_a_random_file_is_refused(save, verify):
    verdict = verify(save(fresh(1).swin.state_dict()))
    assert failed(verdict) == {"weights.pretrained", "weights.untouched"}
    assert verdict.metrics["trained_matrices"] == 0
    assert "look random" in verdict.failures()[0].message


def test_the_gate_stops_a_random_file_and_leaves_the_verdict(save, verify, tmp_path):
    with pytest.raises(GateRefused, match=r"verify says no: weights\.pretrained"):
        verify(save(fresh(1).swin.state_dict()), enforce=True)
    assert (tmp_path / "out" / "verdict.json").is_file()


@pytest.mark.parametrize("draw", [torch.randn, torch.rand], ids=["normal", "uniform"])
def test_random_numbers_in_every_tensor_are_refused(state, save, verify, draw):
    torch.manual_seed(0)
    verdict = verify(save({key: draw(tensor.shape) for key, tensor in state.items()}))
    assert failed(verdict) == {"weights.pretrained"}


def test_one_block_left_out_is_refused_and_named(state, save, verify):
    block = {k: t for k, t in fresh(1).swin.state_dict().items() if k.startswith("layers.1.blocks.1.")}
    verdict = verify(save({**state, **block}))
    assert failed(verdict) == {"weights.untouched"}
    assert "layers.1.blocks.1.norm1.weight" in verdict.failures()[0].examples


@pytest.mark.parametrize(
    ("key", "value", "id"),
    [
        (MATRIX, 0.0, "weights.constant"),
        (MATRIX, 0.7, "weights.constant"),
        (MATRIX, float("nan"), "weights.finite"),
        ("norm.weight", 0.0, "weights.constant"),
        ("norm.weight", 1.0, "weights.untouched"),
        ("norm.weight", float("inf"), "weights.finite"),
    ],
)
def test_a_dead_tensor_is_refused_and_named(state, save, verify, tiny_data, key, value, id):
    state[key] = torch.full_like(state[key], value)
    verdict = verify(save(state), tiny_data)
    assert id in failed(verdict)
    assert next(check for check in verdict.checks if check.id == id).examples == [key]


def test_images_that_do_not_agree_enough_are_a_no(state, save, verify, tiny_data):
    verdict = verify(save(state), tiny_data, min_probe_ratio=50.0)
    assert "weights.agreement" in failed(verdict)
    assert "at least 50 is expected" in next(c.message for c in verdict.checks if c.id == "weights.agreement")


def test_without_data_the_verdict_says_that_no_image_was_shown(state, save, verify):
    verdict = verify(save(state))
    assert verdict.passed
    assert "no dataset was given" in verdict.checks[-1].message
    assert verdict.metrics["images"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_options": {**OPTIONS, "embed_dim": 8}}, r"\d+ not fitting: .* is \[16\], not \[8\]"),
        ({"encoder_options": {**OPTIONS, "window_size": 2}}, r"window 4, not 2.*set verify\.interpolate: true"),
        ({"encoder_options": {**OPTIONS, "depths": [2, 1]}}, r"13 unknown: layers\.1\.blocks\.1\."),
        ({"encoder_options": {**OPTIONS, "depths": [2, 3]}}, r"13 missing: layers\.1\.blocks\.2\."),
        ({"encoder": "swin_of_nowhere"}, "swin_of_nowhere"),
    ],
)
def test_another_architecture_is_one_line_and_nothing_is_written(state, save, verify, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        verify(save(state), **settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_too_few_images_for_the_probe(state, save, verify, pack_records, records):
    with pytest.raises(UserError, match="needs 8 readable images, 3 are there"):
        verify(save(state), pack_records(records[:3]))


WHOLE = {
    "microsoft": layouts.microsoft, "hugging face": layouts.hugging_face, "ram++": layouts.ram_plus, "ram": layouts.ram,
    "tag2text": layouts.tag2text, "ramflow model": layouts.ramflow_model,
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_it_works_alone_on_any_of_these(state, tmp_path, capsys, name):
    torch.save({"model": WHOLE[name](state)}, tmp_path / "weights.pth")
    file, out = str(tmp_path / "weights.pth"), str(tmp_path / "out")
    arguments = ["verify", "--weights", file, "--encoder", NAME, "--out", out]
    assert main([*arguments, "--set", f"verify.encoder_options={json.dumps(OPTIONS)}"]) == 0
    assert f"verify: weights.pth: {name}, torch" in capsys.readouterr().err
    written = load_file(tmp_path / "out" / "encoder.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in written.items())
    check_attested(written, read_attestation(tmp_path / "out"))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, key: tensors[key].add_(1e-6),
        lambda tensors, key: tensors[key].zero_(),
        lambda tensors, key: tensors[key].neg_(),
    ],
    ids=["a little", "nothing loaded", "sign"],
)
def test_a_tensor_that_is_not_the_files_in_memory_is_named(state, save, verify, monkeypatch, change):
    """F01: whatever loading did, the tensors in memory are compared with the file's."""
    load = stage._load

    def faulty(encoder, tensors):
        load(encoder, tensors)
        change(encoder.state_dict(), MATRIX)

    monkeypatch.setattr(stage, "_load", faulty)
    verdict = verify(save(state))
    assert failed(verdict) == {"weights.in_memory"}
    assert verdict.failures()[0].examples == [MATRIX]


def test_weights_that_were_never_loaded_are_a_no(state, save, verify, monkeypatch):
    """F01, as the public code had it: the file is read, and the encoder stays as it was initialised."""
    monkeypatch.setattr(stage, "_load", lambda encoder, tensors: None)
    verdict = verify(save(state))
    assert failed(verdict) == {"weights.in_memory"}
    assert verdict.failures()[0].count == len(state) - 2


def test_the_command_line_says_one_line(tmp_path, capsys):
    (tmp_path / "weights.safetensors").write_text("<html>not found</html>")
    arguments = ["verify", "--weights", str(tmp_path / "weights.safetensors"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.safetensors"]


def test_the_verdict_is_plain_json(state, save, verify, tmp_path):
    verify(save({key: torch.full_like(tensor, float("nan")) for key, tensor in state.items()}))
    content = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert content["passed"] is False
