"""The silent failures that the audit and the loader answer for, each planted and seen through the command line.

Numbers are those of the list of ways a RAM++ run goes wrong without saying so. Clean data is the control of each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ramflow.cli import main
from ramflow.data.audited import usable_samples
from ramflow.data.dataset import Dataset
from ramflow.data.order import Request
from ramflow.data.vectors import CaptionVectors
from ramflow.settings import TrainSettings
from ramflow.tags import read_tags
from ramflow.train.samples import TrainingSamples
from ramflow.verdict import Verdict, read_verdict
from tests.train.artifacts import write_embed

LIMITS = ("audit.workers=1", "audit.rare_below=2", "audit.max_missing_tags_share=0.2", "audit.max_unusable_share=0.5")


def audit(out: Path, *arguments: str | Path) -> Verdict:
    settings = [word for limit in LIMITS for word in ("--set", limit)]
    assert main(["audit", "--out", str(out), *settings, *map(str, arguments)]) == 0
    return read_verdict(out)


def failed(verdict: Verdict) -> set[str]:
    """Checks that did not pass, but for what is true of the clean data: a tag without an image, and pictures alike."""
    known = {"tags.missing", "set.near_duplicate", "set.near_leakage"}
    return {check.id for check in verdict.checks if not check.passed} - known


def test_clean_data_is_not_blamed(tiny_data, tmp_path):
    verdict = audit(tmp_path / "audit", "--data", tiny_data)
    assert verdict.passed and failed(verdict) == set()


def test_f08_annotations_made_for_a_longer_tag_list(records, tmp_path):
    """The list was cut by one, the annotations keep the old ids."""
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    (tmp_path / "tags.txt").write_text("circle\nsquare\ntriangle\nred", encoding="utf-8")
    verdict = audit(tmp_path / "audit", "--annotations", tmp_path / "train.json", "--tags", tmp_path / "tags.txt")
    assert not verdict.passed and "tags.out_of_range" in failed(verdict)


def test_f09_a_tag_without_an_image_keeps_its_id_and_is_marked(tiny_data, tmp_path):
    verdict = audit(tmp_path / "audit", "--data", tiny_data)
    table = read_tags(tmp_path / "audit" / "tag_status.csv")
    assert table.missing == ["unicorn"] and table.names.index("unicorn") == 5
    assert table.status[:5] == ["present"] * 5
    assert next(check for check in verdict.checks if check.id == "tags.missing").examples == ["unicorn"]


@pytest.mark.parametrize(("lines", "blamed"), [(6, set()), (5, {"tags.thresholds"})])
def test_f10_thresholds_of_another_tag_list(tiny_data, tmp_path, lines, blamed):
    (tmp_path / "thresholds.txt").write_text("\n".join(["0.68"] * lines), encoding="utf-8")
    verdict = audit(tmp_path / "audit", "--data", tiny_data, "--thresholds", tmp_path / "thresholds.txt")
    assert failed(verdict) == blamed and verdict.passed == (not blamed)


def test_f11_a_truncated_image_is_set_aside(pack_records, records, copy_of, images_dir, tmp_path):
    images = copy_of(images_dir)
    path = images / records[3]["image_path"]
    path.write_bytes(path.read_bytes()[:-200])
    data = pack_records(records[:12], records[12:18], records[18:], images=images)
    assert failed(audit(tmp_path / "audit", "--data", data)) == {"images.truncated"}
    assert 3 not in usable_samples(Dataset(data), tmp_path / "audit", "train")


def test_f12_a_record_without_tags(pack_records, records, tmp_path):
    records[2]["union_label_id"], records[2]["parse_label_id"] = [], [[], []]
    data = pack_records(records[:12], records[12:18], records[18:])
    assert failed(audit(tmp_path / "audit", "--data", data)) == {"tags.no_union"}


def test_f13_captions_that_are_cut_or_empty(pack_records, records, tmp_path):
    records[0]["caption"] = ["a red circle " * 11, "  "]
    records[1]["caption"] = ["circle, " * 40, "a picture"]
    data = pack_records(records[:12], records[12:18], records[18:])
    verdict = audit(tmp_path / "audit", "--data", data)
    assert failed(verdict) == {"text.long", "text.too_many_tokens", "text.empty"}
    rows = pl.read_parquet(tmp_path / "audit" / "findings.parquet")
    assert rows.filter(pl.col("check") == "text.long")["sample"].to_list() == [0, 1]


def test_f45_an_absolute_path_is_found_and_never_followed(pack_records, records, images_dir, tmp_path):
    records[0]["image_path"] = str(images_dir / records[0]["image_path"])
    data = pack_records(records[:12], records[12:18], records[18:])
    assert failed(audit(tmp_path / "audit", "--data", data)) == {"set.absolute_path", "set.missing_image"}
    assert len(Dataset(data)) == 23


def test_f46_an_image_that_cannot_be_read_is_skipped_and_told(pack_records, records, copy_of, images_dir, tmp_path):
    images = copy_of(images_dir)
    (images / records[1]["image_path"]).write_bytes((images / records[1]["image_path"]).read_bytes()[:300])
    dataset = Dataset(pack_records(records[:4], images=images))
    embed = write_embed(tmp_path / "embed", dataset)
    samples = TrainingSamples(dataset, CaptionVectors(embed), 32, 32, TrainSettings())
    batch = samples[Request(0, 0, np.arange(4))]
    assert batch.samples.tolist() == [0, 2, 3] and len(batch.pixels) == 3
    assert [skipped.sample for skipped in batch.skipped] == [1]
