"""The attestation is exact, and anything else in memory is named."""

from __future__ import annotations

import hashlib
import struct

import pytest
import torch

from ramflow.errors import UserError
from ramflow.weights.attest import Attestation, EncoderIdentity, check_attested, load_encoder, read_attestation
from ramflow.weights.attest import tensor_digests as digests
from tests.weights.conftest import NAME, OPTIONS, fresh


def attest(state):
    identity = EncoderIdentity(NAME, OPTIONS, 32, 32, [0.5] * 3, [0.2] * 3)
    return Attestation({"file": "w"}, identity, {"loaded": []}, digests(state), {"images": 0})


def test_a_digest_is_of_little_endian_float32_bytes():
    tensor = torch.tensor([[1.5, -2.0], [0.25, 3.0]])
    wanted = {"shape": [2, 2], "sha256": "sha256:" + hashlib.sha256(struct.pack("<4f", 1.5, -2, 0.25, 3)).hexdigest()}
    assert digests({"a": tensor})["a"] == wanted
    assert digests({"a": tensor.half()})["a"] == wanted
    assert digests({"a": tensor.T.contiguous().T})["a"] == wanted
    assert digests({"a": tensor.T})["a"]["sha256"] != wanted["sha256"]
    assert digests({"a": torch.nn.Parameter(tensor)})["a"] == wanted


def test_it_reads_back_as_written(state, tmp_path):
    attestation = attest(state)
    attestation.write(tmp_path)
    assert read_attestation(tmp_path) == attestation


def test_the_same_weights_pass(state):
    check_attested({key: tensor.clone() for key, tensor in state.items()}, attest(state))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["norm.bias"].__setitem__(0, 1e-30), r"1 of \d+ tensors differ, first norm\.bias"),
        (lambda s: s.pop("norm.bias"), r"first norm\.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "first extra"),
        (lambda s: s.update({"norm.bias": s["norm.bias"].view(4, 8)}), r"first norm\.bias"),
    ],
    ids=["value", "missing", "extra", "shape"],
)
def test_any_difference_is_named(state, change, named):
    state["norm.bias"].zero_()
    attestation = attest(state)
    change(state)
    with pytest.raises(UserError, match=named):
        check_attested(state, attestation)


def test_a_missing_or_foreign_attestation_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no attestation\.json"):
        read_attestation(tmp_path)
    for content in ("{", "[]", "{}", '{"encoder": {}}'):
        (tmp_path / "attestation.json").write_text(content)
        with pytest.raises(UserError, match="run verify again"):
            read_attestation(tmp_path)


def test_load_encoder_is_strict(state, save, tmp_path):
    with pytest.raises(UserError, match=r"holds no encoder\.safetensors"):
        load_encoder(fresh(1).swin, tmp_path)
    save(state).rename(tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match="for another encoder"):
        load_encoder(fresh(1).swin, tmp_path)
    body = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    save(body).rename(tmp_path / "encoder.safetensors")
    encoder = fresh(1)
    load_encoder(encoder.swin, tmp_path)
    assert all(torch.equal(tensor, body[key]) for key, tensor in encoder.swin.state_dict().items())
    (tmp_path / "encoder.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is damaged"):
        load_encoder(encoder.swin, tmp_path)
