"""The ledger accounts for every tensor, and nothing misfitting slips through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.weights.formats import WeightsFile
from ramflow.weights.ledger import match_keys
from tests.weights.conftest import NAME, fresh

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "swin_large_keys.json"


def as_file(state, family="timm"):
    return WeightsFile(Path("weights.pth"), state, "torch", family)


def test_half_precision_is_converted_and_said(state):
    ledger, tensors = match_keys(as_file({**state, "norm.bias": state["norm.bias"].half()}), fresh(1).swin, NAME)
    assert ledger.converted == [{"from": "norm.bias", "to": "norm.bias", "changes": ["float16 to float32"]}]
    assert tensors["norm.bias"].dtype == torch.float32
    assert torch.equal(tensors["norm.bias"], state["norm.bias"].half().float())


def test_microsofts_downsample_is_renamed_and_said(state):
    name = "downsample.norm.weight"
    moved = {key.replace("layers.1.downsample", "layers.0.downsample"): tensor for key, tensor in state.items()}
    ledger, tensors = match_keys(as_file(moved, "microsoft"), fresh(1).swin, NAME)
    assert {"from": f"layers.0.{name}", "to": f"layers.1.{name}", "changes": ["renamed"]} in ledger.converted
    assert len(ledger.converted) == 3
    assert torch.equal(tensors[f"layers.1.{name}"], state[f"layers.1.{name}"])


def test_microsofts_layout_is_never_taken_for_timms(state):
    moved = {key.replace("layers.1.downsample", "layers.0.downsample"): tensor for key, tensor in state.items()}
    with pytest.raises(UserError, match=r"3 missing: layers\.1\.downsample.*3 unknown: layers\.0\.downsample"):
        match_keys(as_file(moved), fresh(1).swin, NAME)


def test_buffers_of_the_file_must_be_what_the_encoder_computes(state):
    buffers = dict(fresh(0).swin.named_buffers())
    ledger, _ = match_keys(as_file({**state, **buffers}), fresh(1).swin, NAME)
    assert set(buffers) == set(ledger.expected_missing) <= set(ledger.unexpected)
    key = next(key for key in buffers if key.endswith("relative_position_index"))
    with pytest.raises(UserError, match=f"1 not fitting: {key} is not what the encoder computes"):
        match_keys(as_file({**state, **buffers, key: buffers[key] + 1}), fresh(1).swin, NAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), r"1 missing: norm\.weight"),
        (lambda s: s.update(extra=torch.ones(1)), "1 unknown: extra"),
        (lambda s: s.update({"norm.weight": torch.ones(5)}), r"1 not fitting: norm\.weight is \[5\], not \[32\]"),
        (lambda s: s.update({"norm.weight": torch.ones(32, dtype=torch.int8)}), r"norm\.weight is int8"),
    ],
)
def test_anything_else_stops_with_the_first_differing_keys(state, change, message):
    change(state)
    encoder = fresh(1)
    before = {key: tensor.clone() for key, tensor in encoder.swin.state_dict().items()}
    with pytest.raises(UserError, match=rf"weights\.pth is not for encoder {NAME}: .*{message}"):
        match_keys(as_file(state), encoder.swin, NAME)
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.swin.state_dict().items())


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference folder is not beside the repository")
def test_the_public_swin_large_loads_to_the_last_key():
    """Names and shapes of Microsoft's file: 24 indices and 11 masks computed, two of the head unused."""
    keys = json.loads(GOLDEN.read_text())["keys"]
    buffers = {key for key, _ in keys if key.endswith(("relative_position_index", "attn_mask"))}
    with torch.device("meta"):
        encoder = Swin("swin_large_patch4_window7_224", {})
        state = {key: torch.empty(shape) for key, shape in keys if key not in buffers}
        state |= {"head.weight": torch.empty(21841, 1536), "head.bias": torch.empty(21841)}
    ledger, tensors = match_keys(as_file(state, "microsoft"), encoder.swin, "swin_large_patch4_window7_224")
    assert set(ledger.expected_missing) == buffers
    assert len(buffers) == 35
    assert ledger.unexpected == ["head.weight", "head.bias"]
    assert [entry["changes"] for entry in ledger.converted] == [["renamed"]] * 9
    assert len(tensors) == len(keys) - 35 == len(ledger.loaded) + 9
