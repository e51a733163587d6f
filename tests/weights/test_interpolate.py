"""Position tables of another window: by the published interpolation, when asked for, and said so (F03)."""

from __future__ import annotations

import pytest
import torch

from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.weights.attest import check_attested, load_encoder, read_attestation
from ramflow.weights.formats import read_weights
from ramflow.weights.interpolate import resize_table, window_of
from ramflow.weights.ledger import match_keys
from tests.weights import layouts
from tests.weights.conftest import NAME, OPTIONS

SMALL = {**OPTIONS, "window_size": 2}
LARGE = {**OPTIONS, "img_size": 64}
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def encoder(options):
    return Swin(NAME, options).swin


def saved(state, tmp_path):
    torch.save(state, tmp_path / "file")
    return read_weights(tmp_path / "file")


def test_windows_of_tables():
    assert [window_of(n) for n in (1, 9, 49, 169, 529)] == [1, 2, 4, 7, 12]
    assert [window_of(n) for n in (4, 12, 168)] == [None, None, None]


def test_a_smooth_table_keeps_its_shape():
    side = torch.linspace(-1, 1, 23)
    plane = (side[:, None] + 2 * side[None]).reshape(-1, 1).repeat(1, 3)
    small = resize_table(plane, 7).view(13, 13, 3)
    side = torch.linspace(-1, 1, 13)
    assert torch.allclose(small, (side[:, None] + 2 * side[None])[..., None].expand_as(small), atol=0.1)
    assert torch.allclose(small, -small.flip(0, 1), atol=1e-5)
    assert resize_table(plane, 12).equal(plane)


def test_it_is_the_published_codes_resize():
    """torch's bicubic resize of each head's square table, as Swin's own loader does it."""
    table = torch.randn(169, 4)
    squares = table.permute(1, 0).view(1, 4, 13, 13)
    expected = torch.nn.functional.interpolate(squares, size=(23, 23), mode="bicubic")
    assert torch.equal(resize_table(table, 12), expected.view(4, 529).permute(1, 0))


def test_another_window_is_refused_and_the_message_says_how_to_ask(state, tmp_path):
    with pytest.raises(UserError, match=r"4 not fitting.*\(window 4, not 2\).*set verify\.interpolate: true") as error:
        match_keys(saved(state, tmp_path), encoder(SMALL), NAME)
    assert "\n" not in str(error.value)


def test_asked_for_it_is_done_and_written_down(state, tmp_path):
    ledger, tensors = match_keys(saved(state, tmp_path), encoder(SMALL), NAME, interpolate=True)
    assert torch.equal(tensors[TABLE], resize_table(state[TABLE], 2))
    assert [entry["changes"] for entry in ledger.converted] == [["interpolated from window 4 to 2, bicubic"]] * 4
    assert ledger.interpolated == [
        "4 position tables interpolated from window 4 to 2, bicubic (arXiv 2103.14030, section 3.2)"
    ]
    assert "norm.bias" in ledger.loaded


def test_a_fitting_file_is_not_interpolated(state, tmp_path):
    ledger, tensors = match_keys(saved(state, tmp_path), encoder(OPTIONS), NAME, interpolate=True)
    assert ledger.interpolated == [] == ledger.converted
    assert torch.equal(tensors[TABLE], state[TABLE])


def test_another_image_size_with_the_same_window_is_asked_for_too(state, tmp_path):
    """Microsoft's files hold the masks of their image size."""
    file = saved(layouts.microsoft(state), tmp_path)
    with pytest.raises(UserError, match=r"attn_mask is not what the encoder computes.*set verify\.interpolate: true"):
        match_keys(file, encoder(LARGE), NAME)
    ledger, tensors = match_keys(file, encoder(LARGE), NAME, interpolate=True)
    assert ledger.interpolated == ["1 buffers of another window or image size computed anew"]
    assert torch.equal(tensors[TABLE], state[TABLE])


def test_buffers_of_the_same_size_must_be_equal_even_so(state, tmp_path):
    content = layouts.microsoft(state)
    content["layers.0.blocks.0.attn.relative_position_index"] += 1
    with pytest.raises(UserError, match="relative_position_index is not what the encoder computes"):
        match_keys(saved(content, tmp_path), encoder(OPTIONS), NAME, interpolate=True)


def test_no_other_shape_is_interpolated(state, tmp_path):
    state[TABLE] = torch.randn(49, 2)
    with pytest.raises(UserError, match=r"bias_table is \[49, 2\], not \[49, 1\]"):
        match_keys(saved(state, tmp_path), encoder(OPTIONS), NAME, interpolate=True)


def test_the_attestation_says_so(state, save, verify, tmp_path, capsys):
    verdict = verify(save(state), encoder_options=SMALL, interpolate=True)
    sentence = "4 position tables interpolated from window 4 to 2, bicubic"
    assert sentence in read_attestation(tmp_path / "out").ledger["interpolated"][0]
    assert sentence in next(check.message for check in verdict.checks if check.id == "weights.interpolated")
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("layout", [layouts.ramflow_model, layouts.ram_plus])
def test_an_earlier_models_encoder_goes_to_a_larger_window(state, save, verify, tmp_path, layout):
    """Fine-tuning at a higher resolution, as 224 pixels and window 7 to 384 and 12."""
    larger = {**OPTIONS, "img_size": 64, "window_size": 8}
    file = save(layout(state))
    with pytest.raises(UserError, match=r"window 4, not 8\).*set verify\.interpolate: true"):
        verify(file, encoder_options=larger)
    assert verify(file, encoder_options=larger, interpolate=True).passed
    attestation = read_attestation(tmp_path / "out")
    assert "4 position tables interpolated from window 4 to 8, bicubic" in attestation.ledger["interpolated"][0]
    assert attestation.encoder.image_size == 64 and attestation.ledger["other"]
    grown = Swin(NAME, larger)
    load_encoder(grown.swin, tmp_path / "out")
    check_attested(grown.swin.state_dict(), attestation)
    key = "layers.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(grown.swin.state_dict()[key], state[key])
