"""embed: every tag and caption has its own vector, in the table's order, and what is wrong with texts is counted."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
import torch

from ramflow.data.dataset import Dataset
from ramflow.data.vectors import CaptionVectors, TagEmbeddings, read_tag_embeddings
from ramflow.embed.encoder import TextEncoder
from ramflow.errors import GateRefused, UserError
from ramflow.tags import TagTable
from tests.conftest import TAGS
from tests.embed.conftest import WIDTH, write_clip


def of(verdict, id):
    return next(check for check in verdict.checks if check.id == id)


def findings(out):
    """Check, caption and text of every finding."""
    return pl.read_parquet(out / "findings.parquet").select("check", "caption", "text").rows()


@pytest.fixture
def encoder(tiny_clip):
    return TextEncoder(tiny_clip)


def test_clean_input_passes_with_figures(embed, texts, tmp_path):
    verdict = embed(texts)
    assert verdict.passed, verdict.failures()
    assert {check.id for check in verdict.checks if not check.passed} == {"embed.descriptions_uneven"}
    assert findings(tmp_path / "out") == []
    figures = {"tags": 6, "descriptions": 13, "captions": 48, "width": WIDTH, "identity_rate": 1.0}
    assert verdict.metrics | figures == verdict.metrics
    assert verdict.metrics["min_probe_cosine"] == pytest.approx(1.0, abs=1e-4)


def test_every_tag_has_the_rows_of_its_own_texts_in_the_tables_order(embed, texts, encoder, tiny_data, tmp_path):
    embed(texts)
    stored = read_tag_embeddings(tmp_path / "out")
    assert stored.tag_digest == Dataset(tiny_data).tags.digest
    assert stored.encoder == encoder.identity
    assert stored.embeddings.shape == (6, 3, WIDTH)
    described = {tag: own for item in texts for tag, own in item.items()}
    for tag, name in enumerate(TAGS):
        assert stored.mask[tag].tolist() == [True, True, name == "unicorn"]
        for column, text in enumerate(described[name]):
            assert torch.allclose(stored.embeddings[tag, column], encoder.encode([text], 1)[0], atol=1e-5)
        assert not stored.embeddings[tag][~stored.mask[tag]].any()


def test_the_order_of_the_file_does_not_matter(embed, texts, tmp_path):
    embed(texts, out="one")
    embed(texts[::-1], out="two")
    one, two = (read_tag_embeddings(tmp_path / name).embeddings for name in ("one", "two"))
    assert torch.allclose(one, two, atol=1e-5)


def test_every_caption_has_its_row(embed, texts, encoder, tiny_data, tmp_path):
    embed(texts)
    vectors = CaptionVectors(tmp_path / "out")
    captions = Dataset(tiny_data).manifest["captions"].to_list()
    assert (len(vectors), vectors.width) == (24, WIDTH)
    for sample, own in enumerate(captions):
        wanted = torch.stack([encoder.encode([text], 1)[0] for text in own])
        assert torch.allclose(vectors.of(sample), wanted, atol=1e-3)


def test_same_input_same_bytes(embed, texts, tmp_path):
    embed(texts, out="one")
    embed(texts, out="two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.fixture
def ungated_audit(tiny_audit, tmp_path):
    """The audit's files without its verdict, which says of which dataset they are."""
    copy = shutil.copytree(tiny_audit, tmp_path / "audit")
    (copy / "verdict.json").unlink()
    return copy


def test_odd_captions_keep_their_rows_and_are_counted(
    embed, texts, pack_records, records, ungated_audit, encoder, tmp_path
):
    records[0]["caption"], records[1]["caption"], records[2]["caption"] = [], ["", "blue"], ["x" * 100]
    verdict = embed(texts, data=pack_records(records[:12]), audit=ungated_audit)
    assert verdict.passed
    assert (of(verdict, "embed.caption_empty").count, of(verdict, "embed.caption_empty").severity) == (1, "warning")
    assert of(verdict, "embed.caption_cut").examples == ["row 2: " + "x" * 100]
    assert findings(tmp_path / "out") == [("embed.caption_empty", 0, ""), ("embed.caption_cut", 2, "x" * 100)]
    vectors = CaptionVectors(tmp_path / "out")
    assert [len(vectors.of(sample)) for sample in range(4)] == [0, 2, 1, 2]
    assert torch.allclose(vectors.of(1)[1], encoder.encode(["blue"], 1)[0], atol=1e-3)


def test_odd_descriptions_are_masked_or_counted(embed, texts, tmp_path):
    texts[0]["unicorn"] = ["", "a horse", "a horse", "y" * 100]
    verdict = embed([*texts, {"dragon": ["a dragon"]}])
    assert verdict.passed
    assert of(verdict, "embed.unknown_tag").examples == ["dragon"]
    assert of(verdict, "embed.description_empty").examples == ["unicorn 0: "]
    assert of(verdict, "embed.description_repeated").examples == ["unicorn 2: a horse"]
    assert of(verdict, "embed.description_cut").examples == ["unicorn 3: " + "y" * 100]
    assert of(verdict, "embed.descriptions_uneven").count == 5
    rows = pl.read_parquet(tmp_path / "out" / "findings.parquet").rows()
    assert rows[0] == ("embed.unknown_tag", None, "dragon", None, None, "")
    assert [row[:4] for row in rows[1:]] == [
        ("embed.description_empty", 5, "unicorn", 0),
        ("embed.description_repeated", 5, "unicorn", 2),
        ("embed.description_cut", 5, "unicorn", 3),
    ]
    assert read_tag_embeddings(tmp_path / "out").mask[-1].tolist() == [False, True, True, True]


def test_tags_without_a_description_stop_it_and_leave_nothing(embed, texts, tmp_path):
    with pytest.raises(UserError, match="no description for 1 of 6 tags: 'unicorn'"):
        embed(texts[1:])
    assert not (tmp_path / "out").exists()


def test_without_descriptions_every_tag_has_one_template(embed, encoder, tmp_path):
    assert embed().passed
    stored = read_tag_embeddings(tmp_path / "out")
    assert stored.embeddings.shape == (6, 1, WIDTH)
    wanted = encoder.encode([f"a photo of a {name}." for name in TAGS], 8)
    assert torch.allclose(stored.embeddings[:, 0], wanted, atol=1e-5)


def test_templates_stand_before_the_descriptions(embed, texts, encoder, tmp_path):
    embed(texts, templates=["one {}", "{}s"])
    stored = read_tag_embeddings(tmp_path / "out")
    assert stored.mask.sum(dim=1).tolist() == [4, 4, 4, 4, 4, 5]
    wanted = encoder.encode(["one square", "squares", *texts[4]["square"]], 8)
    assert torch.allclose(stored.embeddings[1, :4], wanted, atol=1e-5)


def test_the_tag_tables_own_descriptions_are_used(embed, pack_records, records, ungated_audit, encoder, tmp_path):
    own = [[f"the {name}", f"{name} again"] for name in TAGS]
    TagTable(list(TAGS), descriptions=own).write(tmp_path / "tags.csv")
    data = pack_records(records[:12], tags=tmp_path / "tags.csv")
    assert embed(data=data, audit=ungated_audit).passed
    stored = read_tag_embeddings(tmp_path / "out")
    assert torch.allclose(stored.embeddings[1], encoder.encode(own[1], 8), atol=1e-5)


def test_descriptions_that_break_off_are_found(embed, texts, tmp_path):
    texts[1]["blue"][1] = "The colour of the sky. It is a colour that is"
    verdict = embed(texts)
    found = of(verdict, "embed.description_truncated")
    assert (found.count, found.severity, found.total) == (1, "warning", 13)
    assert found.examples == ["blue 1: The colour of the sky. It is a colour that is"]


def test_embeddings_made_elsewhere_are_taken_and_proved(embed, texts, tmp_path):
    embed(texts, out="first")
    made = tmp_path / "first" / "tags.safetensors"
    verdict = embed(texts, embeddings=made)
    assert verdict.passed
    assert (tmp_path / "out" / "tags.safetensors").read_bytes() == made.read_bytes()
    assert verdict.inputs["embeddings"]
    assert embed(embeddings=tmp_path / "first", out="second").passed  # known by the template alone


def test_a_public_file_is_taken(embed, texts, encoder, tmp_path):
    texts[0]["unicorn"].pop()
    embed(texts, out="first")
    rows = read_tag_embeddings(tmp_path / "first").embeddings.flatten(0, 1)
    torch.save(rows, tmp_path / "public.pth")
    assert embed(texts, embeddings=tmp_path / "public.pth").passed
    stored = read_tag_embeddings(tmp_path / "out")
    assert torch.equal(stored.embeddings.flatten(0, 1), rows)
    assert stored.tag_digest.startswith("sha256:") and stored.encoder == encoder.identity


def test_embeddings_of_a_list_that_moved_are_refused(embed, texts, tmp_path):
    """F07: the right number of rows, one tag further on."""
    texts[0]["unicorn"].pop()
    embed(texts, out="first")
    rows = read_tag_embeddings(tmp_path / "first").embeddings
    torch.save(rows.roll(1, 0).flatten(0, 1), tmp_path / "moved.pth")
    verdict = embed(texts, embeddings=tmp_path / "moved.pth")
    assert {"embed.probe_cosine", "embed.identity"} <= {check.id for check in verdict.failures()}


def test_embeddings_that_name_another_tag_list_are_one_line(embed, texts, tmp_path):
    embed(texts, out="first")
    own = read_tag_embeddings(tmp_path / "first")
    (tmp_path / "other").mkdir()
    TagEmbeddings(own.embeddings, own.mask, "sha256:" + 64 * "0", own.encoder).write(tmp_path / "other")
    with pytest.raises(UserError, match="made for another tag list"):
        embed(texts, embeddings=tmp_path / "other" / "tags.safetensors")


def test_embeddings_of_another_encoder_are_refused(embed, texts, tmp_path):
    other = write_clip(tmp_path / "clip", seed=1)
    embed(texts, clip=other, out="first")
    verdict = embed(texts, embeddings=tmp_path / "first" / "tags.safetensors")
    assert not of(verdict, "embed.encoder").passed
    assert "embed.probe_cosine" in {check.id for check in verdict.failures()}


def test_a_reference_is_compared_with(embed, texts, tmp_path):
    embed(texts, out="first")
    verdict = embed(texts, reference=tmp_path / "first")
    assert verdict.passed
    assert verdict.metrics["reference_cosine"] == pytest.approx(1.0, abs=1e-4)
    assert of(verdict, "embed.reference_diagnosis").passed


def test_another_reference_is_refused_with_a_diagnosis(embed, texts, tmp_path):
    embed(texts, clip=write_clip(tmp_path / "clip", seed=1), out="first")
    verdict = embed(texts, reference=tmp_path / "first")
    assert "embed.reference_diagnosis" in {check.id for check in verdict.failures()}


def test_an_audit_of_another_tag_list_is_refused(embed, texts, ungated_audit):
    table = (ungated_audit / "tag_status.csv").read_text().replace("unicorn", "dragon")
    (ungated_audit / "tag_status.csv").write_text(table)
    with pytest.raises(UserError, match="another tag list"):
        embed(texts, audit=ungated_audit)


def test_an_encoder_of_zeros_is_refused(embed, texts, tmp_path):
    folder = write_clip(tmp_path / "clip")
    rewrite(folder, lambda key, tensor: tensor * 0 if key == "text_projection.weight" else tensor)
    verdict = embed(texts, clip=folder)
    failures = {check.id for check in verdict.failures()}
    assert {"embed.tags_unit", "embed.captions_unit", "embed.probe_cosine"} <= failures


def test_an_encoder_of_nan_is_refused_by_the_gate(embed, texts, tmp_path):
    folder = write_clip(tmp_path / "clip")
    rewrite(folder, lambda key, tensor: tensor * float("nan") if key == "text_projection.weight" else tensor)
    with pytest.raises(GateRefused, match=r"embed says no: embed\.tags_finite: 13 of 13"):
        embed(texts, clip=folder, enforce=True)
    assert (tmp_path / "out" / "verdict.json").is_file()


def test_a_constant_encoder_is_refused(embed, texts, tmp_path):
    """The last norm of the text model gives its bias, whatever the text."""
    folder = write_clip(tmp_path / "clip")
    rewrite(folder, lambda key, tensor: constant(key, tensor) if "text_model.final_layer_norm" in key else tensor)
    verdict = embed(texts, clip=folder)
    assert "embed.constant" in {check.id for check in verdict.failures()}


def constant(key, tensor):
    return torch.ones_like(tensor) if key.endswith("bias") else torch.zeros_like(tensor)


def rewrite(folder, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file({k: change(k, t) for k, t in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
