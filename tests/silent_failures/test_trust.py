"""The silent failures of tag lists, embeddings and pretrained weights, each planted and seen, and its clean control.

Numbers are those of the list of ways a RAM++ run goes wrong without saying so.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramflow.cli import main
from ramflow.data.dataset import Dataset
from ramflow.data.pack import pack
from ramflow.data.vectors import TagEmbeddings, read_tag_embeddings
from ramflow.errors import GateRefused, UserError
from ramflow.settings import AuditSettings, EvaluateSettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from ramflow.tags import read_tags
from ramflow.train import start
from ramflow.train.loop import Trainer
from ramflow.verdict import Check, Verdict, read_verdict
from ramflow.weights.attest import read_attestation
from tests.conftest import TAGS
from tests.embed.conftest import WIDTH
from tests.train import artifacts
from tests.weights import layouts
from tests.weights.conftest import NAME, OPTIONS, fresh

STAGE = {stage.name: stage for stage in STAGES}
SWIN = ["--encoder", NAME, "--set", f"verify.encoder_options={json.dumps(OPTIONS)}"]


def verify(weights: Path, out: Path, *more: str, code: int = 0, swin: list[str] = SWIN) -> Verdict:
    """Run ``ramflow verify --enforce`` as a person does; the verdict, which is empty where the file is refused."""
    assert main(["verify", "--weights", str(weights), *swin, "--out", str(out), "--enforce", *more]) == code
    return Verdict("verify") if code == 2 else read_verdict(out)


def failures(verdict: Verdict) -> set[str]:
    return {check.id for check in verdict.failures()}


@pytest.fixture
def steps(monkeypatch):
    """The steps that training made; none of them changes anything."""
    made: list[int] = []
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: made.append(self.position.step))
    return made


def refused(inputs, tmp_path, match: str, error: type[Exception] = UserError, **changes) -> None:
    """See that train refuses the inputs in one line and leaves nothing."""
    given = {**inputs, **{name: str(path) for name, path in changes.items()}}
    with pytest.raises(error, match=match) as caught:
        execute(STAGE["train"], artifacts.settings(), given, str(tmp_path / "refused"))
    assert "\n" not in str(caught.value) and not (tmp_path / "refused").exists()


def test_f01_a_load_that_skips_keys_is_no_load(state, save, tmp_path, capsys):
    body = {key: tensor for key, tensor in state.items() if not key.startswith("layers.1.blocks.1.")}
    verify(save(body), tmp_path / "skipped", code=2)
    assert "13 missing: layers.1.blocks.1.norm1.weight" in capsys.readouterr().err
    assert not (tmp_path / "skipped").exists()
    assert verify(save(state), tmp_path / "clean").passed
    attestation = read_attestation(tmp_path / "clean")
    assert len(attestation.ledger["loaded"]) == len(attestation.tensors) == len(state) - 2


def test_f01_an_encoder_read_and_never_loaded_makes_no_step(inputs, tmp_path, steps, monkeypatch):
    """The public code of before April 2024: the file is opened, and the model keeps its random weights."""
    monkeypatch.setattr(start, "load_encoder", lambda encoder, directory: load_file(directory / "encoder.safetensors"))
    refused(inputs, tmp_path, r"not the one that verify attested: \d+ of \d+ tensors differ")
    assert steps == []


def test_f01_a_load_in_the_trainer_that_is_not_strict_makes_no_step(inputs, tmp_path, steps, monkeypatch):
    def tolerant(encoder, directory):
        state = load_file(directory / "encoder.safetensors")
        encoder.load_state_dict({k: t for k, t in state.items() if "blocks.0.mlp" not in k}, strict=False)

    monkeypatch.setattr(start, "load_encoder", tolerant)
    refused(inputs, tmp_path, r"\d of \d+ tensors differ, first layers\.0\.blocks\.0\.mlp\.fc1\.weight")
    assert steps == []


def test_f01_other_weights_in_the_place_of_the_verified_ones(state, save, inputs, tmp_path, steps):
    verify(save(state), tmp_path / "verify")
    other = {key: tensor.contiguous() for key, tensor in fresh(3).swin.state_dict().items()}
    save_file(other, tmp_path / "verify" / "encoder.safetensors")
    refused(inputs, tmp_path, "is not what verify wrote", verify=tmp_path / "verify")
    assert steps == []


def test_f01_verified_weights_are_trained_on(inputs, tmp_path):
    """The control: nothing is refused, and the verdict says how many tensors were proved."""
    verdict = execute(STAGE["train"], artifacts.settings(epochs=1), inputs, str(tmp_path / "train"))
    proved = next(check for check in verdict.checks if check.id == "train.attested")
    tensors = load_file(Path(inputs["verify"]) / "encoder.safetensors")
    assert verdict.passed and (proved.count, proved.total) == (0, len(tensors))


def test_f02_tensors_of_equal_shapes_under_other_names(state, save, tmp_path, capsys):
    """As many tensors, each of a shape that fits; the names are those of no Swin."""
    body = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    verify(save({f"trunk.{number:03}": tensor for number, tensor in enumerate(body.values())}), tmp_path / "a", code=2)
    assert "trunk.000" in capsys.readouterr().err
    moved = {key.replace("layers.1.blocks", "layers.1.units"): tensor for key, tensor in body.items()}
    verify(save(moved), tmp_path / "b", code=2)
    said = capsys.readouterr().err
    assert "26 missing: layers.1.blocks.0.norm1.weight" in said and "layers.1.units.0" in said
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize("layout", [layouts.microsoft, layouts.old_timm, layouts.hugging_face])
def test_f02_a_key_layout_that_is_known_loads_whole(state, save, tmp_path, layout):
    verify(save({key: tensor.contiguous().clone() for key, tensor in layout(state).items()}), tmp_path / "out")
    written = load_file(tmp_path / "out" / "encoder.safetensors")
    assert written.keys() == {key for key in state if not key.startswith("head.")}
    assert all(torch.equal(tensor, state[key]) for key, tensor in written.items())


def test_f02_random_numbers_in_the_right_layout(save, tmp_path):
    verdict = verify(save({k: t.contiguous() for k, t in fresh(1).swin.state_dict().items()}), tmp_path / "a", code=3)
    assert failures(verdict) == {"weights.pretrained", "weights.untouched"}


def test_f03_another_window_is_interpolated_only_when_asked_for(state, save, tmp_path, capsys):
    weights = save(state)
    swin = ["--encoder", NAME, "--set", f"verify.encoder_options={json.dumps({**OPTIONS, 'window_size': 2})}"]
    verify(weights, tmp_path / "silent", code=2, swin=swin)
    assert "window 4, not 2" in capsys.readouterr().err and not (tmp_path / "silent").exists()
    verify(weights, tmp_path / "asked", "--set", "verify.interpolate=true", swin=swin)
    ledger = read_attestation(tmp_path / "asked").ledger
    assert "from window 4 to 2" in ledger["interpolated"][0]
    assert len(ledger["converted"]) == 4
    assert all("interpolated" in entry["changes"][0] for entry in ledger["converted"])
    verify(weights, tmp_path / "same")
    assert read_attestation(tmp_path / "same").ledger["interpolated"] == []


def test_f04_a_checkpoint_without_tag_embeddings_leaves_no_zeros(embed, texts, state, tmp_path):
    torch.save({"model": {f"visual_encoder.{key}": tensor for key, tensor in state.items()}}, tmp_path / "ram.pth")
    with pytest.raises(UserError, match=r"ram\.pth") as caught:
        embed(texts, embeddings=tmp_path / "ram.pth")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "gate"),
    [
        (lambda rows: rows[4:6].zero_(), "embed.tags_unit"),
        (lambda rows: rows.copy_(rows[:1].clone()), "embed.constant"),
    ],
    ids=["zero", "constant"],
)
def test_f04_zero_or_constant_rows(embed, texts, inputs, tmp_path, steps, spoil, gate):
    texts[0]["unicorn"].pop()
    assert embed(texts, out="clean").passed
    rows = read_tag_embeddings(tmp_path / "clean").embeddings.flatten(0, 1)
    spoil(rows)
    torch.save(rows, tmp_path / "spoilt.pth")
    assert gate in failures(embed(texts, embeddings=tmp_path / "spoilt.pth"))
    bad = with_rows(inputs["embed"], rows.view(6, 2, WIDTH), tmp_path / "embed")
    refused(inputs, tmp_path, r"embeddings of (1|all 6) .*run embed again", embed=bad)
    assert steps == []


def with_rows(directory: str, rows: torch.Tensor, copy: Path, tag_digest: str = "") -> Path:
    """A copy of an embed output with other rows or another tag list, and a verdict that says yes."""
    shutil.copytree(directory, copy)
    own = read_tag_embeddings(copy)
    mask = torch.ones(rows.shape[:2], dtype=torch.bool)
    TagEmbeddings(rows, mask, tag_digest or own.tag_digest, own.encoder).write(copy)
    return copy


def test_f05_without_verified_weights_there_is_no_run(inputs, tmp_path, steps, capsys):
    words = [word for name, path in inputs.items() if name != "verify" for word in (f"--{name}", path)]
    with pytest.raises(SystemExit):
        main(["train", *words, "--out", str(tmp_path / "none")])
    assert "--verify" in capsys.readouterr().err
    no = Path(shutil.copytree(inputs["verify"], tmp_path / "no"))
    Verdict("verify", checks=[Check("weights.pretrained", "error", 9, 9, 4, False, "9 matrices look random")]).write(no)
    refused(inputs, tmp_path, r"verify says no: weights\.pretrained", GateRefused, verify=no)
    unproved = Path(shutil.copytree(inputs["verify"], tmp_path / "unproved"))
    (unproved / "verdict.json").unlink()
    refused(inputs, tmp_path, r"no verdict\.json", verify=unproved)
    assert steps == []


def test_f05_random_weights_on_purpose_are_said(inputs, tmp_path):
    settings = artifacts.settings(from_scratch=True, epochs=1)
    verdict = execute(STAGE["train"], settings, inputs, str(tmp_path / "scratch"))
    assert [c.id for c in verdict.checks if not c.passed] == ["train.from_scratch"] and verdict.passed
    assert json.loads((tmp_path / "scratch" / "model" / "provenance.json").read_text())["weights"] is None


def test_f06_uneven_descriptions_move_no_row(embed, texts, tmp_path):
    """One tag has three descriptions and the others two: 13 rows, which no division by 6 tags accounts for."""
    assert embed(texts).passed
    stored = read_tag_embeddings(tmp_path / "out")
    assert stored.embeddings.shape == (6, 3, WIDTH) and stored.mask.sum(dim=1).tolist() == [2, 2, 2, 2, 2, 3]
    torch.save(stored.embeddings[stored.mask], tmp_path / "flat.pth")
    with pytest.raises(UserError, match="13 rows, not the same number for each of 6 tags"):
        embed(texts, embeddings=tmp_path / "flat.pth", out="flat")


def test_f06_one_description_too_many_and_one_too_few_elsewhere(embed, texts, tmp_path):
    """The sum is right again, and every tag in between has a row of its neighbour's."""
    texts[0]["unicorn"].pop()
    assert embed(texts, out="clean").passed
    rows = read_tag_embeddings(tmp_path / "clean").embeddings.flatten(0, 1)
    torch.save(torch.cat([rows[:2], rows[1:9], rows[10:]]), tmp_path / "moved.pth")
    torch.save(rows, tmp_path / "whole.pth")
    assert embed(texts, embeddings=tmp_path / "whole.pth", out="whole").passed
    assert "embed.probe_cosine" in failures(embed(texts, embeddings=tmp_path / "moved.pth"))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0], [0, 1, 3, 2, 4, 5]])
def test_f07_rows_in_another_order_than_the_tags(embed, texts, tmp_path, order):
    texts[0]["unicorn"].pop()
    embed(texts, out="clean")
    torch.save(read_tag_embeddings(tmp_path / "clean").embeddings[order].flatten(0, 1), tmp_path / "rows.pth")
    verdict = embed(texts, embeddings=tmp_path / "rows.pth", reference=tmp_path / "clean")
    wrong = {"embed.identity", "embed.probe_cosine", "embed.reference_identity", "embed.reference_diagnosis"}
    if order == sorted(order):
        assert verdict.passed, verdict.failures()
    else:
        assert wrong <= failures(verdict)


def test_f08_a_dropped_tag_keeps_its_id_and_nobody_gets_it(tiny_data, tmp_path):
    (tmp_path / "tags.txt").write_text("\n".join(TAGS), encoding="utf-8")
    assert main(["tags", "drop", str(tmp_path / "tags.txt"), "square", "--out", str(tmp_path / "tags.csv")]) == 0
    table = read_tags(tmp_path / "tags.csv")
    assert table.names == list(TAGS) and table.dropped == [1]
    assert table.digest == Dataset(tiny_data).tags.digest


def test_f08_a_list_cut_and_numbered_anew_does_not_go_with_the_rest(embed, texts, inputs, tmp_path, steps):
    """144 tags dropped and re-indexed, here one: embeddings of the short list, annotations and data of the long one."""
    texts[0]["unicorn"].pop()
    embed(texts, out="clean")
    rows = read_tag_embeddings(tmp_path / "clean").embeddings
    short = torch.cat([rows[:1], rows[2:]])
    torch.save(short.flatten(0, 1), tmp_path / "short.pth")
    with pytest.raises(UserError, match="10 rows, not the same number for each of 6 tags"):
        embed(texts, embeddings=tmp_path / "short.pth", out="short")
    cut = with_rows(inputs["embed"], short, tmp_path / "embed")
    refused(inputs, tmp_path, "embeddings were made from another tag list", embed=cut)
    padded = torch.cat([short, short[-1:]])  # as many rows as before: every tag after the first has its neighbour's
    torch.save(padded.flatten(0, 1), tmp_path / "padded.pth")
    assert {"embed.identity", "embed.probe_cosine"} <= failures(embed(texts, embeddings=tmp_path / "padded.pth"))
    assert steps == []


@pytest.fixture
def reordered(records, images_dir, tmp_path):
    """The same pictures packed with the tag list in another order, and their audit."""
    (tmp_path / "other.txt").write_text("\n".join(sorted(TAGS)), encoding="utf-8")
    for name, part in (("train", records[:12]), ("validation", records[12:18]), ("test", records[18:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    files = [f"{name}={tmp_path / name}.json" for name in ("train", "validation", "test")]
    pack(files, images_dir, tmp_path / "other.txt", tmp_path / "data")
    settings = AuditSettings(max_missing_tags_share=0.2, rare_below=2, workers=1)
    execute(STAGE["audit"], settings, {"data": str(tmp_path / "data")}, str(tmp_path / "audit"))
    Verdict("audit").write(tmp_path / "audit")
    return {"data": str(tmp_path / "data"), "audit": str(tmp_path / "audit")}


def test_f10_embeddings_of_another_list_are_refused_by_train(inputs, reordered, tmp_path, steps):
    refused(inputs, tmp_path, "do not belong together", **reordered)
    unsigned = with_rows(inputs["embed"], read_tag_embeddings(Path(inputs["embed"])).embeddings, tmp_path / "embed")
    Verdict("embed").write(unsigned)
    refused(inputs, tmp_path, "made from another tag list", **reordered, embed=unsigned)
    assert steps == []


def test_f10_a_model_of_another_list_is_refused_by_evaluate(inputs, reordered, tmp_path):
    execute(STAGE["train"], artifacts.settings(epochs=1), inputs, str(tmp_path / "train"))
    settings = EvaluateSettings(batch=4, device="cpu", min_ratio_to_frequency=0.0)
    own = {"data": inputs["data"], "audit": inputs["audit"], "train": str(tmp_path / "train")}
    assert execute(STAGE["evaluate"], settings, own, str(tmp_path / "own"))
    other = {**own, **reordered}
    with pytest.raises(UserError, match="do not belong together"):
        execute(STAGE["evaluate"], settings, other, str(tmp_path / "other"))
    Verdict("train").write(tmp_path / "train")  # as if nobody knew what it was made from
    with pytest.raises(UserError, match="trained with another tag list"):
        execute(STAGE["evaluate"], settings, other, str(tmp_path / "other"))


def test_f10_every_artifact_carries_the_digest_of_one_list(inputs, tiny_data, tmp_path):
    execute(STAGE["train"], artifacts.settings(epochs=1), inputs, str(tmp_path / "train"))
    digest, model = Dataset(tiny_data).tags.digest, tmp_path / "train" / "model"
    tables = [read_tags(path) for path in (Path(inputs["audit"]) / "tag_status.csv", model / "tags.csv")]
    rows = [read_tag_embeddings(path) for path in (Path(inputs["embed"]), model)]
    assert {table.digest for table in tables} == {row.tag_digest for row in rows} == {digest}
    assert json.loads((model / "provenance.json").read_text())["tags"] == digest
    assert len(tables[1].thresholds) == len(tables[1].names) == len(rows[1].embeddings)
