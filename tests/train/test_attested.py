"""The trainer proves, on every rank, that the encoder it will train is the attested one; else nothing is trained."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch

from ramflow.cli import main
from ramflow.data.vectors import TagEmbeddings, read_tag_embeddings
from ramflow.errors import UserError
from ramflow.stage import execute
from ramflow.tags import TagTable
from ramflow.train import start
from ramflow.train.loop import Trainer
from ramflow.weights.attest import read_attestation, tensor_digests
from tests.conftest import TAGS
from tests.train import artifacts
from tests.train.conftest import TRAIN
from tests.train.two_ranks import BIAS, flip_a_bit, rank

CPU = torch.device("cpu")


def build(inputs, **changes):
    verify, vectors = Path(inputs["verify"]), read_tag_embeddings(Path(inputs["embed"]))
    return start.build_model(artifacts.settings(**changes), read_attestation(verify), vectors, verify, CPU)


def test_the_model_holds_what_verify_attested(inputs):
    attested = read_attestation(Path(inputs["verify"])).tensors
    assert tensor_digests(dict(build(inputs).encoder.swin.named_parameters())) == attested
    fresh = tensor_digests(dict(build(inputs, from_scratch=True).encoder.swin.named_parameters()))
    assert sum(fresh[key] == attested[key] for key in attested) < len(attested) / 2 + 20


def test_one_bit_is_seen_and_named(inputs):
    model, attestation = build(inputs), read_attestation(Path(inputs["verify"]))
    start.prove_attested(model, attestation)
    flip_a_bit(model)
    with pytest.raises(UserError, match=rf"1 of \d+ tensors differ, first {BIAS}"):
        start.prove_attested(model, attestation)


def test_an_encoder_that_is_read_and_never_loaded_stops_the_run_before_step_1(inputs, tmp_path, monkeypatch):
    """The fault of the failed run, planted in the trainer itself: the file is opened, and its tensors go nowhere."""
    steps = []
    monkeypatch.setattr(start, "load_encoder", lambda encoder, directory: None)
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: steps.append(batch))
    with pytest.raises(UserError, match="not the one that verify attested"):
        execute(TRAIN, artifacts.settings(), inputs, str(tmp_path / "train"))
    assert not steps and not (tmp_path / "train").exists()


def test_half_precision_is_not_what_was_attested(inputs):
    model, attestation = build(inputs), read_attestation(Path(inputs["verify"]))
    model.encoder.half().float()
    with pytest.raises(UserError, match="tensors differ"):
        start.prove_attested(model, attestation)


def test_weights_without_a_verdict_need_from_scratch(inputs, tmp_path):
    verify = Path(shutil.copytree(inputs["verify"], tmp_path / "verify"))
    (verify / "verdict.json").unlink()
    given = {**inputs, "verify": str(verify)}
    with pytest.raises(UserError, match=r"not the output of a stage: it has no verdict\.json"):
        execute(TRAIN, artifacts.settings(), given, str(tmp_path / "train"))
    assert execute(TRAIN, artifacts.settings(from_scratch=True), given, str(tmp_path / "scratch")).passed


def test_without_a_verify_output_there_is_no_run(inputs, tmp_path, capsys):
    words = [w for name, path in inputs.items() if name != "verify" for w in (f"--{name}", path)]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--set", "train.from_scratch=true", *words, "--out", str(tmp_path / "train")])
    assert stopped.value.code == 2
    assert "--verify" in capsys.readouterr().err


def test_the_verdict_counts_the_tensors_that_were_proved(trained, inputs):
    checks = {c["id"]: c for c in json.loads((trained / "verdict.json").read_text())["checks"]}
    tensors = len(read_attestation(Path(inputs["verify"])).tensors)
    assert (checks["train.attested"]["count"], checks["train.attested"]["total"]) == (0, tensors)


def test_a_rank_that_holds_another_encoder_stops_all_ranks(inputs, tmp_path):
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{number}.json" for number in range(2)]
    given = (artifacts.settings(), Path(inputs["verify"]), Path(inputs["embed"]), tmp_path / "meeting")
    processes = [context.Process(target=rank, args=(n, *given, outs[n])) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (json.loads(out.read_text()) for out in outs)
    assert first[0] == second[0] == "starts"
    assert first[1] == "rank 0 of 2: rank 1 gave up, its own message says why"
    assert second[1].startswith("rank 1 of 2: the encoder in memory is not the one that verify attested: 1 of ")
    assert BIAS in second[1]
    assert (first[2], second[2]) == ("a bug", "rank 1 of 2: rank 0 gave up, its own message says why")


@pytest.fixture
def vectors(inputs) -> TagEmbeddings:
    """Sound embeddings of the tag list."""
    return read_tag_embeddings(Path(inputs["embed"]))


def test_sound_embeddings_pass(vectors):
    start.check_embeddings(vectors, TagTable(list(TAGS)))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda e, m: e[1].zero_(), "embeddings of 1 of 6 tags are missing, zero.*first square"),
        (lambda e, m: e[4, 1].fill_(float("nan")), "1 of 6 tags.*first blue"),
        (lambda e, m: e.mul_(3), "6 of 6 tags.*first circle, square, triangle"),
        (lambda e, m: m[2].zero_(), "1 of 6 tags.*first triangle"),
        (lambda e, m: (m.fill_(True), e.copy_(e[1].clone())), "embeddings of all 6 tags are the same"),
    ],
    ids=["zero", "nan", "not unit", "none", "constant"],
)
def test_unsound_embeddings_are_refused(vectors, spoil, named):
    spoil(vectors.embeddings, vectors.mask)
    with pytest.raises(UserError, match=named) as error:
        start.check_embeddings(vectors, TagTable(list(TAGS)))
    assert "\n" not in str(error.value)
