"""The ledger accounts for every tensor, and nothing misfitting slips through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.weights.families import MICROSOFT, TIMM, find_family
from ramflow.weights.formats import WeightsFile
from ramflow.weights.ledger import match_keys
from tests.weights import layouts
from tests.weights.conftest import NAME, fresh

FC = "layers.0.blocks.0.mlp.fc1.weight"
GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "swin_large_keys.json"


PATH = Path("weights.pth")


def as_file(state, family=TIMM):
    return WeightsFile(PATH, state, "torch", family)


def told(state):
    """The file with the family that its keys tell."""
    return as_file(state, find_family(state, PATH))


def test_half_precision_is_converted_and_said(state):
    ledger, tensors = match_keys(as_file({**state, "norm.bias": state["norm.bias"].half()}), fresh(1).swin, NAME)
    assert ledger.converted == [{"from": "norm.bias", "to": "norm.bias", "changes": ["float16 to float32"]}]
    assert tensors["norm.bias"].dtype == torch.float32
    assert torch.equal(tensors["norm.bias"], state["norm.bias"].half().float())


def test_microsofts_downsample_is_renamed_and_said(state):
    name = "downsample.norm.weight"
    moved = {key.replace("layers.1.downsample", "layers.0.downsample"): tensor for key, tensor in state.items()}
    ledger, tensors = match_keys(as_file(moved, MICROSOFT), fresh(1).swin, NAME)
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
        (
            lambda s: s.update({FC: s[FC].T.contiguous()}),
            r"1 not fitting: layers\.0\.blocks\.0\.mlp\.fc1\.weight is \[16, 64\], not \[64, 16\] \(transposed\)",
        ),
        (lambda s: s.update({"layers.0.downsample.norm.bias": torch.ones(64)}), "1 unknown: layers.0.downsample"),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith("layers.1.blocks.0.")],
            r"13 missing: layers\.1\.blocks\.0\.norm1\.weight",
        ),
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
    ledger, tensors = match_keys(as_file(state, MICROSOFT), encoder.swin, "swin_large_patch4_window7_224")
    assert set(ledger.expected_missing) == buffers
    assert len(buffers) == 35
    assert ledger.unexpected == ["head.weight", "head.bias"]
    assert [entry["changes"] for entry in ledger.converted] == [["renamed"]] * 9
    assert len(tensors) == len(keys) - 35 == len(ledger.loaded) + 9


QUERY = "swin.encoder.layers.1.blocks.0.attention.self.query.weight"
KEY = QUERY.replace("query", "key")
WHOLE = {
    "microsoft": layouts.microsoft, "hugging face": layouts.hugging_face, "ram++": layouts.ram_plus, "ram": layouts.ram,
    "tag2text": layouts.tag2text, "ramflow model": layouts.ramflow_model,
}  # fmt: skip


@pytest.mark.parametrize("layout", WHOLE.values(), ids=WHOLE)
def test_each_family_misses_nothing_and_takes_nothing_more(state, layout):
    content = layout(state)
    outside = match_keys(told(content), fresh(1).swin, NAME)[0]
    encoder_keys = [key for key in content if told(content).place(key) and key not in outside.unexpected]
    for key in encoder_keys:
        less = {k: tensor for k, tensor in content.items() if k != key}
        with pytest.raises(UserError, match=r"1 missing: |not a Swin"):
            match_keys(told(less), fresh(1).swin, NAME)
    prefix = next(key for key in encoder_keys if key.endswith("norm1.weight") or "layernorm_before" in key)
    with pytest.raises(UserError, match="1 unknown: "):
        match_keys(told({**content, prefix + "2": torch.ones(1)}), fresh(1).swin, NAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(QUERY), r"1 missing: layers\.1\.blocks\.0\.attn\.qkv\.weight \(2 of its 3 parts are there\)"),
        (lambda s: s.update({QUERY: torch.ones(3, 32)}), rf"1 not fitting: {QUERY} is \[3, 32\], not \[32, 32\]"),
        (lambda s: s.update({QUERY.replace("self.query", "q_proj"): s[QUERY]}), "1 unknown: .*q_proj"),
    ],
)
def test_query_key_and_value_are_put_together_whole_or_not_at_all(state, change, message):
    content = layouts.hugging_face(state)
    change(content)
    with pytest.raises(UserError, match=message):
        match_keys(told(content), fresh(1).swin, NAME)


def test_the_ledger_says_what_was_put_together_and_what_is_outside(state):
    ledger, tensors = match_keys(told(layouts.hugging_face(state)), fresh(1).swin, NAME)
    target = "layers.1.blocks.0.attn.qkv.weight"
    entry = next(entry for entry in ledger.converted if entry["to"] == target)
    assert entry == {"from": [QUERY, KEY, QUERY.replace("query", "value")], "to": target, "changes": ["concatenated"]}
    assert torch.equal(tensors[target], state[target])
    ledger, _ = match_keys(told(layouts.ram_plus(state)), fresh(1).swin, NAME)
    assert ledger.other == {"label_embed": 1, "reweight_scale": 1, "tagging_head": 1, "image_proj": 1}
    assert all(key.startswith("visual_encoder.") for key in ledger.unexpected)
    assert {entry["from"] for entry in ledger.converted} >= {"visual_encoder.norm.bias"}


def test_a_misfit_says_which_encoder_the_file_is(state):
    with torch.device("meta"):
        large = Swin("swin_large_patch4_window12_384", {}).swin.state_dict()
    for content, held in (
        (large, "swin_large_patch4_window12_384"),
        ({f"visual_encoder.{key}": tensor for key, tensor in large.items()}, "swin_large_patch4_window12_384"),
        ({key: tensor for key, tensor in state.items() if key != "norm.bias"}, "width 16, depths 2-2, window 4"),
    ):
        with pytest.raises(UserError, match=f"by its shapes the file is .*{held}"):
            match_keys(told(content), fresh(1).swin, NAME)
