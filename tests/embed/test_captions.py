"""Captions in chunks: each distinct text once, and a run that was killed goes on to the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from ramflow.data.dataset import Dataset
from ramflow.data.vectors import CaptionVectors, caption_rows
from ramflow.embed import captions
from ramflow.embed.caption_checks import caption_row_checks, probe_captions
from ramflow.embed.captions import embed_captions, make_plan
from ramflow.embed.encoder import TextEncoder
from ramflow.settings import EmbedSettings
from tests.embed.conftest import write_clip

CHUNK = 5
KILLED = f"""
import itertools, os, sys
import ramflow.cli
from ramflow.embed import captions, encoder
captions.SAMPLES_A_CHUNK = {CHUNK}
calls, real = itertools.count(1), encoder.TextEncoder._vectors
def vectors(*given):
    if next(calls) > 7: os.kill(os.getpid(), 9)
    return real(*given)
encoder.TextEncoder._vectors = vectors
sys.exit(ramflow.cli.main(sys.argv[1:]))
"""
"""``ramflow`` that dies at the eighth batch: after one of tags, one of the probe, and some chunks of captions."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(captions, "SAMPLES_A_CHUNK", CHUNK)


@pytest.fixture
def encoder(tiny_clip):
    return TextEncoder(tiny_clip)


@pytest.fixture
def repeating(pack_records, records):
    """A set whose captions repeat within a chunk and across chunks, with samples of none."""
    for number, record in enumerate(records):
        record["caption"] = [["a", "b", "a"], [], ["c", f"picture {number}"], ["x" * 100], ["", "b"]][number % 5]
    return Dataset(pack_records(records))


def written(dataset, encoder, out, batch=4):
    (out / "pieces").mkdir(parents=True, exist_ok=True)
    return embed_captions(dataset, make_plan(dataset), encoder, batch, out, out / "pieces")


def test_the_plan_knows_the_first_row_of_every_text(repeating):
    plan = make_plan(repeating)
    texts = [text for own in repeating.manifest["captions"].to_list() for text in own]
    assert plan.first.tolist() == [texts.index(text) for text in texts]
    assert np.diff(plan.offsets).tolist() == [len(own) for own in repeating.manifest["captions"].to_list()]
    assert [start for start, _ in plan.chunks] == [0, 5, 10, 15, 20]
    assert sum(int(plan.own(rows).sum()) for _, rows in plan.chunks) == len(set(texts))


def test_every_caption_has_its_row_and_each_text_is_encoded_once(repeating, encoder, tmp_path, monkeypatch):
    encoded = []
    real = encoder.tokenize
    monkeypatch.setattr(encoder, "tokenize", lambda texts: encoded.extend(texts) or real(texts))
    written(repeating, encoder, tmp_path)
    assert len(encoded) == len(set(encoded))
    vectors = CaptionVectors(tmp_path)
    for sample, own in enumerate(repeating.manifest["captions"].to_list()):
        assert len(vectors.of(sample)) == len(own)
        if own:
            assert torch.allclose(vectors.of(sample), encoder.encode(own, 8), atol=1e-3)


def test_findings_list_repeated_captions_too(repeating, encoder, tmp_path):
    rows = pl.concat([pl.read_parquet(piece) for piece in written(repeating, encoder, tmp_path)])
    texts = [text for own in repeating.manifest["captions"].to_list() for text in own]
    assert rows.filter(pl.col("check") == "embed.caption_cut")["caption"].to_list() == [
        row for row, text in enumerate(texts) if len(text) == 100
    ]
    assert rows.filter(pl.col("check") == "embed.caption_empty")["caption"].to_list() == [
        row for row, text in enumerate(texts) if not text
    ]


def test_chunks_that_are_done_are_not_done_again(repeating, encoder, tmp_path, monkeypatch):
    pieces = written(repeating, encoder, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for number in (1, 3, 4):
        (tmp_path / "part" / "pieces" / pieces[number].name).unlink()
        caption_rows(tmp_path / "part")[make_plan(repeating).chunks[number][1]] = 0
    calls = []
    real = encoder.tokenize
    monkeypatch.setattr(encoder, "tokenize", lambda texts: calls.append(texts) or real(texts))
    written(repeating, encoder, tmp_path / "part")
    assert len(calls) == 3
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "part" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_set_without_captions(pack_records, records, encoder, tmp_path):
    for record in records:
        record["caption"] = []
    dataset = Dataset(pack_records(records))
    written(dataset, encoder, tmp_path)
    assert [len(CaptionVectors(tmp_path).of(sample)) for sample in (0, 23)] == [0, 0]
    assert all(check.total == 0 for check in caption_row_checks(tmp_path))
    assert probe_captions(dataset, make_plan(dataset), encoder, tmp_path, EmbedSettings()) == []


def test_rows_that_are_not_sound_are_counted_on_disk(repeating, encoder, tmp_path):
    written(repeating, encoder, tmp_path)
    assert all(check.passed for check in caption_row_checks(tmp_path))
    rows = caption_rows(tmp_path)
    rows[3], rows[5, 0], rows[7] = 0, np.nan, 2 * rows[7]
    finite, unit = caption_row_checks(tmp_path)
    assert (finite.id, finite.count, finite.examples) == ("embed.captions_finite", 1, ["row 5"])
    assert (unit.id, unit.count, unit.examples) == ("embed.captions_unit", 2, ["row 3", "row 7"])


def test_rows_that_are_not_their_captions_are_caught(repeating, encoder, tmp_path):
    written(repeating, encoder, tmp_path)
    plan, settings = make_plan(repeating), EmbedSettings()
    (sound,) = probe_captions(repeating, plan, encoder, tmp_path, settings)
    assert (sound.id, sound.count, sound.total) == ("embed.caption_probe", 0, 19)
    rows = caption_rows(tmp_path)
    rows[:] = np.roll(rows, 1, axis=0)
    (moved,) = probe_captions(repeating, plan, encoder, tmp_path, settings)
    assert moved.count > 10 and not moved.passed


@pytest.fixture
def filled(monkeypatch):
    """Counts the chunks that are filled."""
    calls = []
    real = captions._Writer._fill
    monkeypatch.setattr(captions._Writer, "_fill", lambda *given: calls.append(1) or real(*given))
    return calls


def same_bytes(one, two):
    names = {"tags.safetensors", "captions.safetensors", "findings.parquet", "verdict.json"}
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()} == names
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_killed_run_goes_on_to_the_same_bytes(embed, tiny_data, tiny_audit, tiny_clip, tmp_path, filled):
    embed(out="whole")
    words = [
        "--data",
        tiny_data,
        "--audit",
        tiny_audit,
        "--clip",
        tiny_clip,
        "--out",
        tmp_path / "out",
        "--set",
        "embed.batch=8",
    ]
    done = subprocess.run([sys.executable, "-c", KILLED, "embed", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    partial = tmp_path / "out.partial"
    tags = (partial / "tags.safetensors").stat().st_mtime_ns
    pieces = len(list((partial / "findings").glob("captions-*.parquet")))
    assert 1 <= pieces < 5
    filled.clear()
    assert embed(out="out").passed
    assert len(filled) == 5 - pieces
    assert (tmp_path / "out" / "tags.safetensors").stat().st_mtime_ns == tags
    same_bytes(tmp_path / "whole", tmp_path / "out")


def stopped(embed, monkeypatch, where):
    """Run embed until it comes to ``where``, and interrupt it there."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(where, interrupt)
        embed(out="out")


@pytest.mark.parametrize("where", ["write_findings", "text_checks", "caption_row_checks"])
def test_a_run_stopped_after_the_captions_does_none_of_them_again(embed, tmp_path, monkeypatch, filled, where):
    embed(out="whole")
    stopped(embed, monkeypatch, f"ramflow.embed.stage.{where}")
    filled.clear()
    embed(out="out")
    assert filled == []
    same_bytes(tmp_path / "whole", tmp_path / "out")


def test_another_clip_starts_anew(embed, tmp_path, monkeypatch, filled):
    stopped(embed, monkeypatch, "ramflow.embed.stage.write_findings")
    other = write_clip(tmp_path / "other", seed=1)
    filled.clear()
    embed(clip=other, out="out")
    assert len(filled) == 5
    embed(clip=other, out="whole")
    same_bytes(tmp_path / "whole", tmp_path / "out")
