"""The public RAM++ checkpoint, either way: to the key, to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ramflow.cli import main
from ramflow.data.vectors import TagEmbeddings
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.saved import save_model
from ramflow.settings import HeadSettings
from ramflow.tags import TagTable
from ramflow.weights.containers import load_torch
from ramflow.weights.formats import read_weights
from ramflow.weights.ledger import BUFFERS
from ramflow.weights.upstream import ramflow_name, read_ram_plus, upstream_name, upstream_state, write_ram_plus
from tests.model import golden
from tests.weights.conftest import NAME, OPTIONS, fresh

SWIN_LARGE = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "swin_large_keys.json"
HEAD = HeadSettings(hidden=16, layers=2, heads=4, feed_forward=32)
TAGS = 6


def tiny(descriptions: int = 3) -> RamPlus:
    """A random model over the tiny encoder."""
    encoder = fresh(0)
    random = torch.Generator().manual_seed(1)
    embeddings = torch.nn.functional.normalize(torch.randn(TAGS, descriptions, 8, generator=random), dim=-1)
    return RamPlus(encoder, HEAD, embeddings, torch.ones(TAGS, descriptions, dtype=torch.bool)).eval()


@pytest.fixture
def checkpoint(tmp_path):
    """A public checkpoint of the tiny model: its content, to change, and ``write()``."""
    content = {"model": upstream_state(tiny()), "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}
    content["config"] = {"image_size": 32, "batch_size_per_gpu": 26}

    def write() -> Path:
        torch.save(content, tmp_path / "checkpoint_03.pth")
        return tmp_path / "checkpoint_03.pth"

    return content["model"], write


def test_the_public_codes_model_goes_out_and_comes_back_to_the_bit(tmp_path):
    figures = golden.load()
    state, images = golden.state_dict(figures), golden.inputs(figures)["images"].float()[:1]
    model = golden.model(figures).eval()
    write_ram_plus(model, tmp_path / "ram_plus.pth")
    written = load_torch(tmp_path / "ram_plus.pth")
    parameters = {key: tensor for key, tensor in written["model"].items() if not key.endswith(BUFFERS)}
    assert sorted([key, list(tensor.shape)] for key, tensor in parameters.items()) == sorted(figures["keys"])
    assert all(torch.equal(tensor, state[key]) for key, tensor in parameters.items())
    again = read_ram_plus(tmp_path / "ram_plus.pth", golden.encoder(figures), figures["model"]["tags"])
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_what_was_read_is_what_was_written(checkpoint):
    model, again = tiny(), read_ram_plus(checkpoint[1](), fresh(5), TAGS)
    assert not again.training
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(again.embeddings, model.embeddings)
    assert again.mask.all() and again.mask.shape == (TAGS, 3)


def test_names_go_both_ways():
    for key in tiny().state_dict():
        assert ramflow_name(upstream_name(key)) == key
    assert ramflow_name("vision_multi.encoder.layer.1.output.dense.bias") == "head.layers.1.contract.bias"
    assert ramflow_name("label_embed") is None
    assert ramflow_name("text_decoder.cls.bias") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("fc.bias"), r"1 missing: fc\.bias"),
        (lambda m: m.pop("visual_encoder.norm.bias"), r"1 missing: norm\.bias"),
        (lambda m: m.pop("reweight_scale"), "not a RAM\\+\\+ checkpoint"),
        (lambda m: m.pop("label_embed"), "has no label_embed"),
        (lambda m: m.pop("wordvec_proj.weight"), "has no wordvec_proj.weight"),
        (lambda m: m.update(extra=torch.ones(1)), "1 unknown: extra"),
        (lambda m: m.update({"visual_encoder.extra": torch.ones(1)}), "1 unknown: visual_encoder.extra"),
        (lambda m: m.update({"fc.weight": m["fc.weight"].T.contiguous()}), r"1 of another shape: fc\.weight"),
        (lambda m: m.update({"fc.weight": m["fc.weight"].int()}), r"1 not floating point: fc\.weight"),
        (lambda m: m.update({"label_embed": m["label_embed"][:-1].clone()}), r"17 rows of label_embed are not 6 tags"),
    ],
)
def test_anything_else_is_named(checkpoint, change, message):
    model, write = checkpoint
    change(model)
    with pytest.raises(UserError, match=message) as error:
        read_ram_plus(write(), fresh(5), TAGS)
    assert "\n" not in str(error.value)


def test_uneven_descriptions_cannot_be_written(tmp_path):
    model = tiny()
    model.mask[2, 1:] = False
    with pytest.raises(UserError, match="1 to 3 descriptions"):
        write_ram_plus(model, tmp_path / "ram_plus.pth")
    assert not list(tmp_path.iterdir())


def test_uneven_descriptions_are_repeated_when_asked(tmp_path):
    """A tag with one of three descriptions, repeated, is the same tag to the bit of rounding; with two of three not."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for kept, same in ((1, True), (2, False)):
        model = tiny()
        model.mask[2, kept:] = False
        model.embeddings[2, kept:] = 0
        write_ram_plus(model, tmp_path / "ram_plus.pth", repeat=True)
        again = read_ram_plus(tmp_path / "ram_plus.pth", fresh(5), TAGS)
        assert torch.equal(again.embeddings[2], model.embeddings[2][[0, 1 % kept, 2 % kept]])
        with torch.no_grad():
            before, after = model(images), again(images)
        torch.testing.assert_close(before[:, [0, 1, 3, 4, 5]], after[:, [0, 1, 3, 4, 5]])
        assert torch.allclose(before[:, 2], after[:, 2], atol=1e-6) == same


def save_trained(tmp_path, model):
    """What train writes of a model, in ``tmp_path/train``."""
    tags = TagTable(list("abcdef"))
    (tmp_path / "train").mkdir()
    vectors = TagEmbeddings(model.embeddings, model.mask, tags.digest, {"type": "none"})
    config = {"encoder": {"name": NAME, "options": OPTIONS}, "head": HEAD.model_dump()}
    encoder = model.encoder
    preprocessing = Preprocessing(encoder.image_size, encoder.mean, encoder.std)
    save_model(tmp_path / "train", model.state_dict(), config, preprocessing, tags, vectors, {})


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_export_of_a_trained_model(tmp_path, ending):
    model = tiny()
    save_trained(tmp_path, model)
    arguments = ["export", "--model", str(tmp_path / "train"), "--out"]
    one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
    for path in (one, two):
        assert main([*arguments, str(path)]) == 0
    assert one.read_bytes() == two.read_bytes()
    written = load_torch(one)["model"] if ending == ".pth" else load_file(one)
    assert written.keys() == upstream_state(model).keys() and "label_embed" in written
    again = read_ram_plus(one, fresh(5), TAGS)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_export_of_a_trained_model_says_what_it_needs(tmp_path, capsys):
    save_trained(tmp_path, tiny())
    arguments = ["export", "--model", str(tmp_path / "train"), "--out"]
    assert main([*arguments, str(tmp_path / "one.zip")]) == 2
    assert main([*arguments, str(tmp_path / "one.pth"), "--layout", "timm"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert main([*arguments, str(tmp_path / "one.pth")]) == 0
    assert "attention heads" not in capsys.readouterr().err
    assert main(["export", "--weights", str(tmp_path), "--layout", "timm", "--repeat", *arguments[-1:], "e.pth"]) == 2
    assert "--repeat goes with --model" in capsys.readouterr().err
    config = tmp_path / "train" / "model" / "config.json"
    config.write_text(config.read_text().replace('"heads": 4', '"heads": 2'))
    assert main([*arguments, str(tmp_path / "one.pth")]) == 0
    assert "its head has 2 attention heads" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("layout", ["microsoft", "timm"])
def test_export_of_the_encoder_alone_verifies_to_the_same(state, save, verify, tmp_path, layout, ending):
    verify(save(state), out="one")
    out = tmp_path / f"encoder{ending}"
    assert main(["export", "--weights", str(tmp_path / "one"), "--layout", layout, "--out", str(out)]) == 0
    assert read_weights(out).family == layout
    verify(out, out="two")
    one, two = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_export_says_what_it_needs(state, save, verify, tmp_path, capsys):
    verify(save(state), out="one")
    weights = ["export", "--weights", str(tmp_path / "one"), "--out", str(tmp_path / "e.pth")]
    assert main(weights) == 2
    (tmp_path / "one" / "encoder.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes())
    capsys.readouterr()
    assert main([*weights, "--layout", "timm"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "e.pth").exists()


@pytest.mark.skipif(not SWIN_LARGE.exists(), reason="the reference folder is not beside the repository")
def test_the_full_size_models_names_are_the_public_ones():
    """Swin-L's keys as in the public state dict, to the last buffer; nothing of the model is left without a name."""
    keys = {f"visual_encoder.{key}": shape for key, shape in json.loads(SWIN_LARGE.read_text())["keys"]}
    with torch.device("meta"):
        encoder = Swin("swin_large_patch4_window7_224", {})
        model = RamPlus(encoder, HeadSettings(), torch.empty(4585, 51, 512), torch.ones(1, 1, dtype=torch.bool))
        names = {upstream_name(key): list(tensor.shape) for key, tensor in model.state_dict().items()}
    buffers = {f"visual_encoder.{key}": list(buffer.shape) for key, buffer in encoder.swin.named_buffers()}
    assert {key: shape for key, shape in (names | buffers).items() if key.startswith("visual_encoder.")} == keys
    assert all(ramflow_name(key) for key in names)
