"""Opening a packed dataset: its parts belong together, or one line says which does not."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import polars as pl
import pytest

from ramflow.data.dataset import MANIFEST_SCHEMA, MISSING_SCHEMA, Dataset
from ramflow.errors import UserError
from ramflow.storage import sha256_file


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
    assert data.splits == {"train": range(12), "validation": range(12, 18), "test": range(18, 24)}
    rows = data.scan().collect()
    assert rows.drop("sample").equals(data.manifest) and rows["sample"].to_list() == list(range(24)) == [
        *range(len(data))
    ]
    for sample, row in enumerate(data.manifest.iter_rows(named=True)):
        assert data.shard_of(sample).name == row["shard"] and sample in data.shard_of(sample).range
        assert data.image(sample) == data.read(row["shard"], row["offset"], row["length"])
        assert data.union_tags(sample).tolist() == row["union_tags"]
        assert data.usable_captions(sample).tolist() == list(range(len(row["captions"])))
    for sample in (-1, 24):
        with pytest.raises(IndexError):
            data.image(sample)


def test_some_samples_come_from_no_more_shards_than_it_takes(tiny_data):
    data = Dataset(tiny_data)
    assert data.some(100) == list(range(24)) and data.some(24) == list(range(24))
    few = data.some(4)
    assert len(few) == 4 and len({data.shard_of(sample).name for sample in few}) <= 4
    assert data.some(0) == []


def test_captions_without_a_word_are_not_usable(pack_records, records):
    for record, captions in zip(records, ([" ", "a circle", "\t\n", "b"], [], [""]), strict=False):
        record["caption"], record["parse_label_id"] = captions, []
    data = Dataset(pack_records(records[:4]))
    assert [data.usable_captions(i).tolist() for i in range(4)] == [[1, 3], [], [], [0, 1]]


def test_the_description_lists_every_shard_and_source(tiny_data):
    data = Dataset(tiny_data)
    assert data.info["sources"] == {"train": 12, "validation": 6, "test": 6}  # files of these names
    assert [sample for shard in data.shards for sample in shard.range] == list(range(24))
    for shard in data.shards:
        assert (tiny_data / shard.name).stat().st_size == shard.bytes
        assert sha256_file(tiny_data / shard.name) == data.info["files"][shard.name]


def test_it_travels_to_other_processes_without_its_tables(tiny_data):
    data = Dataset(tiny_data)
    data.manifest, data.missing, data.tags  # noqa: B018
    assert len(pickle.dumps(data)) < 5000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(data.image, 3).result() == data.image(3)
        assert pool.submit(data.union_tags, 3).result().tolist() == data.union_tags(3).tolist()


def test_an_altered_manifest_is_named_when_it_is_read(tiny_data, copy_of):
    path = copy_of(tiny_data) / "manifest.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    data = Dataset(path.parent)
    for reading in (data.scan, lambda: data.manifest):
        with pytest.raises(UserError, match=r"manifest\.parquet is not the file that dataset\.json describes"):
            reading()


@pytest.mark.parametrize("name", ["index.safetensors", "missing.parquet", "tags.csv"])
def test_an_altered_or_missing_table_is_named(tiny_data, copy_of, name):
    data = copy_of(tiny_data)
    (data / name).write_bytes((data / name).read_bytes() + b" ")
    with pytest.raises(UserError, match=f"{name} is not the file that dataset.json describes"):
        Dataset(data)
    (data / name).unlink()
    with pytest.raises(UserError, match=f"{name} is gone"):
        Dataset(data)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "files": 3}', "{'"])
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
