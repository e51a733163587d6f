"""Files of embeddings: the public code's form, checkpoints and ramflow's own, there and back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.files import read_embeddings, read_layout, write_upstream
from ramflow.errors import UserError

ROWS = normalize(torch.randn(12, 5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def even():
    return TagEmbeddings(ROWS, torch.ones(12, 5, dtype=torch.bool), "sha256:0", {"type": "clip"})


@pytest.fixture
def uneven():
    mask = torch.ones(12, 5, dtype=torch.bool)
    mask[3, 2:], mask[7, 0] = False, False
    return TagEmbeddings(ROWS * mask[..., None], mask, "sha256:0", {})


def test_the_public_form_is_a_plain_float32_tensor_of_rows(even, tmp_path):
    write_upstream(even, tmp_path / "tags.pth")
    tensor = torch.load(tmp_path / "tags.pth", weights_only=True)
    assert (tensor.dtype, tensor.shape, type(tensor)) == (torch.float32, (60, 8), torch.Tensor)
    for tag, description in ((0, 0), (3, 4), (11, 2)):
        assert torch.equal(tensor[tag * 5 + description], ROWS[tag, description])
    assert [path.name for path in tmp_path.iterdir()] == ["tags.pth"]


def test_there_and_back_is_the_same(even, tmp_path):
    write_upstream(even, tmp_path / "tags.pth")
    back = read_embeddings(tmp_path / "tags.pth", 12)
    assert torch.equal(back.embeddings, ROWS)
    assert (back.mask.all().item(), back.tag_digest, back.encoder) == (True, "", {})


def test_what_the_public_code_writes_is_read_and_written_again_to_the_same_tensor(tmp_path):
    torch.save(ROWS.reshape(-1, 8), tmp_path / "theirs.pth")
    write_upstream(read_embeddings(tmp_path / "theirs.pth", 12), tmp_path / "ours.pth")
    theirs, ours = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("theirs", "ours"))
    assert torch.equal(theirs, ours)


def test_same_content_same_bytes(even, tmp_path):
    write_upstream(even, tmp_path / "one.pth")
    write_upstream(even, tmp_path / "another-name.pth")
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "another-name.pth").read_bytes()


def test_a_part_of_a_larger_tensor_is_written_without_the_rest(even, tmp_path):
    write_upstream(TagEmbeddings(ROWS[:2], even.mask[:2], "", {}), tmp_path / "tags.pth")
    assert (tmp_path / "tags.pth").stat().st_size < 2 * 5 * 8 * 4 + 2000


def test_rows_that_are_no_whole_number_a_tag_are_refused(tmp_path):
    """F06: 4 descriptions for one tag and 5 for the others."""
    torch.save(ROWS.reshape(-1, 8)[:-1].clone(), tmp_path / "tags.pth")
    with pytest.raises(
        UserError, match="has 59 rows, not the same number for each of 12 tags: it is of another tag list"
    ):
        read_embeddings(tmp_path / "tags.pth", 12)


def test_one_row_a_tag_is_accepted(tmp_path):
    torch.save(ROWS[:, 0].clone(), tmp_path / "tags.pth")
    assert read_embeddings(tmp_path / "tags.pth", 12).embeddings.shape == (12, 1, 8)


def test_three_dimensions_are_read_as_they_are(tmp_path):
    torch.save(ROWS, tmp_path / "tags.pth")
    assert torch.equal(read_embeddings(tmp_path / "tags.pth", 12).embeddings, ROWS)
    with pytest.raises(UserError, match=r"has the shape \[12, 5, 8\]"):
        read_embeddings(tmp_path / "tags.pth", 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_converted_and_said(dtype, tmp_path, capsys):
    torch.save(ROWS.reshape(-1, 8).to(dtype), tmp_path / "tags.pth")
    read = read_embeddings(tmp_path / "tags.pth", 12)
    assert read.embeddings.dtype == torch.float32
    assert torch.equal(read.embeddings, ROWS.to(dtype).float())
    assert f"is of {str(dtype)[6:]}: converted to float32" in capsys.readouterr().err


def test_whole_numbers_are_no_embeddings(tmp_path):
    torch.save(torch.ones(12, 8, dtype=torch.int64), tmp_path / "tags.pth")
    with pytest.raises(UserError, match="is of int64: embeddings are floating point"):
        read_embeddings(tmp_path / "tags.pth", 12)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("key", ["label_embed", "module.label_embed"])
def test_a_checkpoints_embeddings_are_read(wrap, key, tmp_path):
    state = {"visual_encoder.norm.weight": torch.ones(3), key: ROWS.reshape(-1, 8)}
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    assert torch.equal(read_embeddings(tmp_path / "checkpoint.pth", 12).embeddings, ROWS)


def test_a_checkpoint_in_safetensors_as_well(tmp_path):
    save_file({"label_embed": ROWS.reshape(-1, 8).contiguous()}, tmp_path / "model.safetensors")
    assert torch.equal(read_embeddings(tmp_path / "model.safetensors", 12).embeddings, ROWS)


def test_a_checkpoint_without_embeddings_is_named_by_its_keys(tmp_path):
    torch.save({"model": {"fc.weight": torch.ones(3), "fc.bias": torch.ones(3)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(
        UserError, match=r"no embeddings of tags \(label_embed\): its first keys are fc.weight, fc.bias"
    ):
        read_embeddings(tmp_path / "checkpoint.pth", 12)


def test_the_own_layout_keeps_its_mask_and_metadata(uneven, tmp_path):
    uneven.write(tmp_path)
    for path in (tmp_path, tmp_path / "tags.safetensors"):
        read = read_embeddings(path, 12)
        assert torch.equal(read.embeddings, uneven.embeddings) and torch.equal(read.mask, uneven.mask)
        assert (read.tag_digest, read.encoder) == ("sha256:0", {})
    assert torch.equal(read_layout(tmp_path).mask, uneven.mask)


def test_another_number_of_tags_is_refused(even, tmp_path):
    even.write(tmp_path)
    with pytest.raises(UserError, match="has 12 tags, the tag list 11: give the list that it was made for"):
        read_embeddings(tmp_path, 11)


def test_uneven_descriptions_are_not_exported_unasked(uneven, tmp_path):
    with pytest.raises(UserError, match=r"2 of 12 tags have fewer than 5 descriptions, first tag 3 with 2: .*--repeat"):
        write_upstream(uneven, tmp_path / "tags.pth")
    assert not list(tmp_path.iterdir())


def test_repeated_rows_are_the_tags_own_from_its_first(uneven, tmp_path):
    write_upstream(uneven, tmp_path / "tags.pth", repeat=True)
    back = read_embeddings(tmp_path / "tags.pth", 12).embeddings
    assert torch.equal(back[3], ROWS[3, [0, 1, 0, 1, 0]])
    assert torch.equal(back[7], ROWS[7, [1, 2, 3, 4, 1]])
    assert torch.equal(back[8], ROWS[8])


def test_a_tag_without_a_row_has_no_place_in_the_public_form(even, tmp_path):
    mask = even.mask.clone()
    mask[5] = False
    with pytest.raises(UserError, match="tag 5 has no row"):
        write_upstream(TagEmbeddings(ROWS, mask, "", {}), tmp_path / "tags.pth", repeat=True)


def test_files_that_are_something_else_are_one_line(even, tmp_path):
    with pytest.raises(UserError, match="no such file of embeddings"):
        read_embeddings(tmp_path / "tags.pth", 12)
    with pytest.raises(UserError, match=r"no such file of embeddings: .*tags\.safetensors"):
        read_embeddings(tmp_path, 12)
    (tmp_path / "notes.txt").write_text("no embeddings")
    with pytest.raises(UserError, match="damaged, cut off or not a weights file"):
        read_embeddings(tmp_path / "notes.txt", 12)
    write_upstream(even, tmp_path / "tags.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "tags.pth").read_bytes()[:-700])
    with pytest.raises(UserError, match=r"damaged, cut off or not a weights file|no plain torch\.save file"):
        read_embeddings(tmp_path / "cut.pth", 12)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list, not a tensor of embeddings"):
        read_embeddings(tmp_path / "list.pth", 12)
    with pytest.raises(UserError, match="is not what embed writes: give its output folder"):
        read_layout(tmp_path / "tags.pth")


class Dangerous:
    def __reduce__(self):
        return print, ("this must never run",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, capsys):
    torch.save({"label_embed": Dangerous()}, tmp_path / "tags.pth")
    with pytest.raises(UserError, match="refused"):
        read_embeddings(tmp_path / "tags.pth", 12)
    assert "never run" not in capsys.readouterr().out
