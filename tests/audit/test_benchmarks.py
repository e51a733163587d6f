"""Images of benchmarks: folders, tars and packed datasets, by digest and hash; shapes that cannot be read are named."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from ramflow.audit.benchmarks import SCHEMA, read_benchmarks
from ramflow.audit.images import Row, inspect
from ramflow.data.dataset import Dataset
from ramflow.errors import UserError
from ramflow.settings import AuditSettings
from tests.conftest import draw

SETTINGS = AuditSettings(workers=1)


def jpeg(shape: str, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    draw(shape, "red", number).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One benchmark of every form."""
    root = tmp_path / "benchmarks"
    (root / "loose/deep").mkdir(parents=True)
    (root / "loose/b.JPG").write_bytes(jpeg("circle"))
    (root / "loose/deep/a.png").write_bytes(jpeg("circle"))
    (root / "loose/labels.csv").write_text("a,b")
    (root / "tars").mkdir()
    write_tar(root / "tars/0.tar", {"x/1.jpg": jpeg("square"), "x/1.json": b"{}", "x/2.jpg": b"<html>"})
    write_tar(root / "single.tar", {"3.jpg": jpeg("triangle"), "4.jpg": b""})
    (root / "README.md").write_text("where they are from")
    return root


def test_every_image_of_every_form(folder, tiny_data):
    shutil.copytree(tiny_data, folder / "packed")
    frame = read_benchmarks(folder, SETTINGS)
    assert frame.schema == SCHEMA and frame["path"].is_sorted()
    packed = frame.filter(benchmark="packed")
    manifest = Dataset(tiny_data).manifest.sort("image_path")
    assert packed["path"].to_list() == [f"packed/{path}" for path in manifest["image_path"]]
    assert packed["sha256"].to_list() == manifest["sha256"].to_list()
    others = frame.filter(benchmark="packed").height
    assert others == 24
    rows = {path: (name, sha) for name, path, sha in frame.filter(~(frame["benchmark"] == "packed"))[:, :3].rows()}
    assert {path: name for path, (name, _) in rows.items()} == {
        "loose/b.JPG": "loose", "loose/deep/a.png": "loose", "single/3.jpg": "single", "single/4.jpg": "single",
        "tars/0.tar/x/1.jpg": "tars", "tars/0.tar/x/2.jpg": "tars",
    }  # fmt: skip
    assert rows["tars/0.tar/x/1.jpg"][1] == hashlib.sha256(jpeg("square")).hexdigest()


def test_the_hash_is_that_of_the_audit(folder):
    seen = {path: (phash, blank) for path, phash, blank in read_benchmarks(folder, SETTINGS)[:, [1, 3, 4]].rows()}
    data = jpeg("square")
    looked = inspect(data, Row("1.jpg", len(data), hashlib.sha256(data).hexdigest()), SETTINGS)
    assert seen["tars/0.tar/x/1.jpg"] == (looked.phash, False) and looked.phash is not None
    assert seen["tars/0.tar/x/2.jpg"] == seen["single/4.jpg"] == (None, False)


def test_processes_read_the_same(folder, tiny_data):
    shutil.copytree(tiny_data, folder / "packed")
    assert read_benchmarks(folder, AuditSettings(workers=2)).equals(read_benchmarks(folder, SETTINGS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such folder of benchmarks: .*benchmarks"),
        (lambda root: [p.unlink() if p.is_file() else shutil.rmtree(p) for p in root.iterdir()], "has no benchmark"),
        (lambda root: (root / "a.jpg").write_bytes(jpeg("circle")), "a.jpg is of no benchmark"),
        (lambda root: (root / "empty").mkdir(), r"empty has no images \(.*\.jpg.*\)"),
        (lambda root: (root / "single").mkdir(), "two benchmarks of the name single"),
        (lambda root: (root / "dataset.json").write_text("{}"), "is a packed dataset: give the folder that it is in"),
        (lambda root: zipfile.ZipFile(root / "loose/more.zip", "w").close(), "more.zip is an archive that is not read"),
        (lambda root: (root / "coco.tar.gz").write_bytes(b""), "coco.tar.gz is an archive that is not read"),
        (lambda root: (root / "tars/1.tar").write_bytes(b"x" * 999), "1.tar is not a whole tar"),
        (lambda root: cut(root / "single.tar", 700), "single.tar is (not a whole tar|cut off)"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(folder, change, message):
    change(folder)
    with pytest.raises(UserError, match=message) as error:
        read_benchmarks(folder, SETTINGS)
    assert "\n" not in str(error.value)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
