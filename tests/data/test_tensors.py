"""safetensors files in slices: the library reads what we write, and we read what the library writes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ramflow.data.tensors import Slices, create
from ramflow.errors import UserError


def test_the_library_reads_what_was_written_in_slices(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = create(
        path, {"a": ("int64", (3,)), "empty": ("int32", (0,)), "b": ("float16", (2, 2)), "c": ("uint8", (5,))}
    )
    arrays["a"][1:3] = [7, -8]
    arrays["b"][1] = [0.5, 2]
    arrays["c"][:] = 255
    del arrays
    read = load_file(path)
    assert read["a"].tolist() == [0, 7, -8] and read["b"].tolist() == [[0, 0], [0.5, 2]]
    assert read["c"].tolist() == [255] * 5 and read["empty"].shape == (0,)


def test_slices_are_what_the_library_wrote_also_after_a_journey(tmp_path):
    values = {"a": np.arange(10, dtype=np.int64), "b": np.arange(6, dtype=np.float32).reshape(3, 2)}
    save_file(values, tmp_path / "a.safetensors")
    for slices in (Slices(tmp_path / "a.safetensors"), pickle.loads(pickle.dumps(Slices(tmp_path / "a.safetensors")))):
        assert slices["a", slice(3, 6)].tolist() == [3, 4, 5]
        assert slices["b", slice(1, 2)].tolist() == [[2, 3]]
        assert slices.length("b") == 3


def test_a_damaged_file_is_one_line(tmp_path):
    for content in (None, b"", b"no tensors at all"):
        path = tmp_path / "a.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.safetensors cannot be read"):
            Slices(path)
