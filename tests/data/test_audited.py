"""What the audit left: quarantined samples are skipped, and the tag status belongs to the dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramflow.cli import main
from ramflow.data.audited import tag_status, usable_samples
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError

LIMITS = ("audit.workers=1", "audit.max_missing_tags_share=1", "audit.max_unusable_share=1")


def audit(data: Path, out: Path) -> Path:
    assert main(["audit", "--data", str(data), "--out", str(out), *(w for s in LIMITS for w in ("--set", s))]) == 0
    return out


def test_quarantined_samples_are_skipped_and_the_others_keep_their_number(
    pack_records, records, copy_of, images_dir, tmp_path
):
    images = copy_of(images_dir)
    for n in (2, 13):
        (images / records[n]["image_path"]).write_bytes(b"")
    data = pack_records(records[:12], records[12:18], records[18:], images=images)
    out = audit(data, tmp_path / "audit")
    assert usable_samples(Dataset(data), out, "train").tolist() == [0, 1, *range(3, 12)]
    assert usable_samples(Dataset(data), out, "validation").tolist() == [12, *range(14, 18)]
    assert usable_samples(Dataset(data), out, "test").tolist() == list(range(18, 24))


def test_a_split_without_a_usable_image_is_one_line(pack_records, records, copy_of, images_dir, tmp_path):
    images = copy_of(images_dir)
    (images / records[0]["image_path"]).write_bytes(b"")
    data = pack_records(records[:1], images=images)
    out = audit(data, tmp_path / "audit")
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"no usable image in the {split} split"):
            usable_samples(Dataset(data), out, split)


def test_the_status_of_another_tag_list_is_refused(pack_records, records, tiny_data, tiny_audit, tmp_path):
    assert tag_status(Dataset(tiny_data), tiny_audit).missing == ["unicorn"]
    tags = tmp_path / "tags.txt"
    tags.write_text("square\ncircle\ntriangle\nred\nblue\nunicorn", encoding="utf-8")
    other = pack_records(records[:2], tags=tags)
    with pytest.raises(UserError, match=r"tag_status\.csv is of another tag list"):
        tag_status(Dataset(other), tiny_audit)
