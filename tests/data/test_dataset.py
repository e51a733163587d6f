"""Opening a packed dataset: its parts belong together, or one line says which does not."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import polars as pl
import pytest

from ramflow.data.dataset import MANIFEST_SCHEMA, MISSING_SCHEMA, Dataset
from ramflow.errors import UserError


def test_samples_have_the_records_and_the_unchanged_bytes(tiny_data, images_dir, records):
    data = Dataset(tiny_data)
    assert dict(data.manifest.schema) == {
        k: v if isinstance(v, pl.List) else v() for k, v in MANIFEST_SCHEMA.items()
    } and list(data.missing.columns) == list(MISSING_SCHEMA)
    assert data.manifest["image_path"].to_list() == [r["image_path"] for r in records]
    assert data.manifest["captions"].to_list() == [r["caption"] for r in records]
    assert data.manifest["union_tags"].to_list() == [r["union_label_id"] for r in records]
    assert data.manifest["parsed_tags"].to_list() == [r["parse_label_id"] for r in records]
    for shard, offset, length, path in data.manifest.select("shard", "offset", "length", "image_path").iter_rows():
        assert data.read(shard, offset, length) == (images_dir / path).read_bytes()
    assert data.tags.names[-1] == "unicorn" and data.info["samples"] == 24


def test_sample_numbers_are_rows_of_the_manifest(tiny_data):
    data = Dataset(tiny_data)
    assert data.samples("train")["sample"].to_list() == list(range(12))
    assert data.samples("validation")["sample"].to_list() == list(range(12, 18))
    assert data.samples("test")["key"].to_list() == data.manifest["key"].to_list()[18:]


def test_it_travels_to_other_processes(tiny_data):
    data = Dataset(tiny_data)
    row = data.manifest.row(3, named=True)
    place = (row["shard"], row["offset"], row["length"])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(data.read, *place).result() == data.read(*place)


@pytest.mark.parametrize("name", ["manifest.parquet", "missing.parquet", "tags.csv"])
def test_an_altered_or_missing_table_is_named(tiny_data, copy_of, name):
    data = copy_of(tiny_data)
    (data / name).write_bytes((data / name).read_bytes() + b" ")
    with pytest.raises(UserError, match=f"{name} is not the file that dataset.json describes"):
        Dataset(data)
    (data / name).unlink()
    with pytest.raises(UserError, match=f"{name} is gone"):
        Dataset(data)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": 3}', "{'"])
def test_a_damaged_description_is_one_line(tiny_data, copy_of, content):
    data = copy_of(tiny_data)
    (data / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"dataset\.json is "):
        Dataset(data)


def test_a_file_that_the_description_lacks_is_named(tiny_data, copy_of):
    data = copy_of(tiny_data)
    info = json.loads((data / "dataset.json").read_text())
    del info["files"]["tags.csv"]
    (data / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(UserError, match=r"tags\.csv is not the file"):
        Dataset(data)


def test_another_directory_is_no_dataset(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match="is not a packed dataset"):
            Dataset(path)
