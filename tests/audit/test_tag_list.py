"""What must have as many lines as the tag list: thresholds and embeddings; and how long the tail is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ramflow.audit.tag_list import find_in_thresholds, long_tail
from ramflow.errors import UserError
from ramflow.tags import TagTable
from tests.conftest import TAGS

GOOD = ["0.65", "0.7", "1", "0", "1e-3", " 0.5 "]


@pytest.fixture
def thresholds(tmp_path):
    def write(lines):
        (tmp_path / "thresholds.txt").write_text("\n".join(lines), encoding="utf-8")
        return {"thresholds": tmp_path / "thresholds.txt"}

    return write


def test_thresholds_of_this_list_pass(audit_files, records, thresholds):
    done = audit_files(records, inputs=thresholds([*GOOD, ""]))
    assert done.failed() == set() and done.check("tags.thresholds").total == 6


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (GOOD[:5], "5 lines for 6 tags"),
        ([*GOOD, "0.5"], "7 lines for 6 tags"),
        ([*GOOD[:5], "1.01"], "line 6: '1.01'"),
        (["-0.1", *GOOD[:5]], "line 1: '-0.1'"),
        (["nan", *GOOD[:5]], "line 1: 'nan'"),
        (["", *GOOD[:5]], "line 1: ''"),
        (["red 0.5", *GOOD[:5]], "line 1: 'red 0.5'"),
    ],
)
def test_other_thresholds_stop(audit_files, records, thresholds, lines, said):
    done = audit_files(records, inputs=thresholds(lines))
    assert [f.id for f in done.verdict.failures()] == ["tags.thresholds"] and done.failed() == {"tags.thresholds"}
    assert done.rows("tags.thresholds") == [(None, said)]


def test_thresholds_that_are_no_text_are_one_line(audit_files, records, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe0.5")
    with pytest.raises(UserError, match=r"x\.txt is not a list of thresholds"):
        audit_files(records, inputs={"thresholds": tmp_path / "x.txt"})


def write_safetensors(path, rows, digest=None):
    metadata = {} if digest is None else {"ramflow": json.dumps({"tag_digest": digest})}
    save_file({"embeddings": np.zeros((rows, 3, 8), np.float32)}, path, metadata)


@pytest.mark.parametrize("digest", [None, TagTable(list(TAGS)).digest])
def test_embeddings_of_this_list_pass(audit_files, records, tmp_path, digest):
    write_safetensors(tmp_path / "tags.safetensors", 6, digest)
    assert audit_files(records, inputs={"embeddings": tmp_path / "tags.safetensors"}).failed() == set()


@pytest.mark.parametrize(
    ("rows", "digest", "said"),
    [
        (5, None, "tags.safetensors holds 5 tags; the tag list has 6"),
        (6, "sha256:0", "tags.safetensors was made for another tag list of the same length"),
    ],
)
def test_other_embeddings_stop(audit_files, records, tmp_path, rows, digest, said):
    write_safetensors(tmp_path / "tags.safetensors", rows, digest)
    done = audit_files(records, inputs={"embeddings": tmp_path / "tags.safetensors"})
    assert [f.id for f in done.verdict.failures()] == ["tags.embeddings"]
    assert done.rows("tags.embeddings") == [(None, said)]


@pytest.mark.parametrize(("tags", "passes"), [(6, True), (5, False)])
def test_a_file_of_torch_is_measured_without_loading_it(audit_files, records, tmp_path, tags, passes):
    """As upstream's: one tensor of tags x descriptions rows."""
    torch.save(torch.zeros(tags * 51, 512), tmp_path / "frozen.pth")
    done = audit_files(records, inputs={"embeddings": tmp_path / "frozen.pth"})
    assert (done.failed() == set()) is passes
    said = [] if passes else [(None, "frozen.pth holds 255 rows, not as many for each of 6 tags")]
    assert done.rows("tags.embeddings") == said


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_file_that_is_no_embeddings_is_one_line(audit_files, records, tmp_path, name):
    (tmp_path / name).write_bytes(b"no tensors at all")
    with pytest.raises(UserError, match=rf"{name} (cannot be read as embeddings|holds no embeddings)"):
        audit_files(records, inputs={"embeddings": tmp_path / name})


def test_how_long_the_tail_is():
    table = TagTable(list("abcdefghij")).with_counts([1, 60, 20, 0, 5, 5, 4, 3, 1, 1], 2)
    assert long_tail(table) == {
        "positives": 100, "most": 60, "median": 3, "tags_with_half": 1, "tags_with_90_percent": 4,
    }  # fmt: skip
    assert long_tail(TagTable(["a"]).with_counts([0], 2))["tags_with_half"] == 0


def test_upstreams_own_list_passes(tmp_path):
    path = tmp_path / "ram_tag_list_threshold.txt"
    path.write_text("\n".join(["0.65"] * 4585), encoding="utf-8")
    table = TagTable([f"tag {i}" for i in range(4585)])
    found, lines = find_in_thresholds(path, table)
    assert found.collect().is_empty() and lines == 4585
