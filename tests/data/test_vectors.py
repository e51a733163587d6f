"""Vectors read back as written, by sample, from the map of the file; damaged files are one line."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ramflow.data.vectors import (
    CaptionVectors,
    TagEmbeddings,
    caption_rows,
    create_caption_file,
    read_tag_embeddings,
    save_tensors,
    write_caption_vectors,
)
from ramflow.errors import UserError


@pytest.fixture
def rows():
    return normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1).half()


def test_captions_come_back_by_sample(rows, tmp_path):
    write_caption_vectors(tmp_path, rows, [2, 0, 1, 3])
    vectors = CaptionVectors(tmp_path)
    assert (len(vectors), vectors.width) == (4, 4)
    assert [vectors.of(sample).shape for sample in range(4)] == [(2, 4), (0, 4), (1, 4), (3, 4)]
    assert vectors.of(0).dtype == torch.float32
    assert torch.equal(torch.cat([vectors.of(sample) for sample in range(4)]), rows.float())


def test_a_worker_process_opens_the_file_itself(rows, tmp_path):
    write_caption_vectors(tmp_path, rows, [6])
    sent = pickle.dumps(CaptionVectors(tmp_path))
    assert len(sent) < 500
    assert torch.equal(pickle.loads(sent).of(0), rows.float())


def test_counts_that_do_not_cover_the_rows_are_a_bug(rows, tmp_path):
    with pytest.raises(AssertionError):
        write_caption_vectors(tmp_path, rows, [2, 3])


def test_tags_come_back_as_written(tmp_path):
    mask = torch.tensor([[True, False]] * 3)
    wanted = TagEmbeddings(torch.randn(3, 2, 4), mask, "sha256:0", {"type": "clip", "width": 4})
    wanted.write(tmp_path)
    read = read_tag_embeddings(tmp_path)
    assert torch.equal(read.embeddings, wanted.embeddings)
    assert torch.equal(read.mask, wanted.mask)
    assert (read.tag_digest, read.encoder) == (wanted.tag_digest, wanted.encoder)


def test_metadata_of_several_keys_is_the_same_bytes_every_time(tmp_path):
    """safetensors itself orders metadata keys at random."""
    for number in range(8):
        save_tensors({"a": torch.ones(2)}, tmp_path / str(number), {letter: letter for letter in "qwertyuiop"})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_missing_damaged_and_foreign_files_are_one_line(tmp_path):
    for read, name in ((read_tag_embeddings, "tags.safetensors"), (CaptionVectors, "captions.safetensors")):
        with pytest.raises(UserError, match=f"no such file: .*{name}: make it with `ramflow embed`"):
            read(tmp_path)
        (tmp_path / name).write_bytes(b"no tensors at all")
        with pytest.raises(UserError, match="not what embed writes"):
            read(tmp_path)
        save_tensors({"other": torch.ones(1)}, tmp_path / name, {})
        with pytest.raises(UserError, match="run embed again"):
            read(tmp_path)


def test_room_for_captions_is_taken_before_they_are_written(tmp_path):
    """A write to the map of a file on a full disk kills the process; so the disk is asked first."""
    create_caption_file(tmp_path, np.full(1000, 2), 512)
    status = (tmp_path / "captions.safetensors").stat()
    assert status.st_size > 2000 * 512 * 2
    assert status.st_blocks * 512 >= status.st_size


def test_no_room_for_captions_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, pathlib, sys, numpy as np\n"
        "from ramflow.data.vectors import create_caption_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "create_caption_file(pathlib.Path(sys.argv[1]), np.full(1000, 2), 512)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "OSError" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_captions_written_by_rows_are_read_by_sample(rows, tmp_path):
    create_caption_file(tmp_path, np.array([2, 0, 4]), 4)
    caption_rows(tmp_path)[2:] = rows[2:].numpy()
    vectors = CaptionVectors(tmp_path)
    assert torch.equal(vectors.of(2), rows[2:].float())
    assert not vectors.of(0).any() and len(vectors.of(1)) == 0
