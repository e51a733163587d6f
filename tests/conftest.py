"""Fixtures that all tests share: 24 generated pictures of shapes, their records, and the packed dataset of them.

Three shapes in two colours, four pictures each: pictures 0 and 1 of a kind are train, 2 validation, 3 test. The tag
list has six tags, and no picture shows the last one. Session-scoped directories are read-only by agreement: change
a copy (``copy_of``), or pack other records (``pack_records``).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image, ImageDraw

from ramflow.data.pack import pack
from ramflow.settings import AuditSettings
from ramflow.stage import execute
from ramflow.stages import STAGES
from tests.faults import FaultProxy, fault_proxy

TAGS = ("circle", "square", "triangle", "red", "blue", "unicorn")
SHAPES = TAGS[:3]
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}
SPLIT_OF_PICTURE = ("train", "train", "validation", "test")

Record = dict[str, Any]
PackRecords = Callable[..., Path]


def draw(shape: str, colour: str, number: int, side: int = 48) -> Image.Image:
    """A picture of one shape; ``number`` moves and sizes it, so that no two pictures are alike."""
    image = Image.new("RGB", (side, side), (245, 240 - 5 * number, 230))
    pen = ImageDraw.Draw(image)
    low, high = 4 + 3 * number, side - 8 + number
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=COLOURS[colour])
    else:
        pen.polygon(((side / 2, low), (low, high), (high, high)), fill=COLOURS[colour])
    return image


def all_pictures() -> list[tuple[str, str, int]]:
    """(shape, colour, number) of the 24 pictures: 12 of train, then 6 of validation, then 6 of test."""
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    return [(s, c, n) for group in ((0, 1), (2,), (3,)) for n in group for s, c in kinds]


def all_records() -> list[Record]:
    """The 24 records in upstream's format, in the order of :func:`all_pictures`."""
    result = []
    for shape, colour, number in all_pictures():
        ids = [TAGS.index(shape), TAGS.index(colour)]
        result.append({
            "image_path": f"shapes/{shape}_{colour}_{number}.jpg",
            "caption": [f"a {colour} {shape}", f"picture {number} shows a {shape} that is {colour}"],
            "union_label_id": ids,
            "parse_label_id": [ids, ids],
        })  # fmt: skip
    return result


@pytest.fixture
def records() -> list[Record]:
    """The 24 records in upstream's format, to change at will: 12 of train, then 6 of validation, then 6 of test."""
    return all_records()


@pytest.fixture(scope="session")
def images_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the records' ``image_path`` is relative to."""
    root = tmp_path_factory.mktemp("images")
    (root / "shapes").mkdir()
    for shape, colour, number in all_pictures():
        draw(shape, colour, number).save(root / "shapes" / f"{shape}_{colour}_{number}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def tiny_tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tag list, a name a line, without a final newline as upstream's."""
    path = tmp_path_factory.mktemp("tags") / "tags.txt"
    path.write_text("\n".join(TAGS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def _packer(tmp_path_factory: pytest.TempPathFactory, images_dir: Path, tiny_tags: Path) -> PackRecords:
    def pack_them(
        train: list[Record], validation: list[Record] = (), test: list[Record] = (),  # type: ignore[assignment]
        *, images: Path = images_dir, tags: Path = tiny_tags, shard_bytes: int = 4096,
    ) -> Path:  # fmt: skip
        folder = tmp_path_factory.mktemp("packed")
        annotations = []
        for split, chosen in (("train", train), ("validation", validation), ("test", test)):
            (folder / f"{split}.json").write_text(json.dumps(list(chosen)), encoding="utf-8")
            annotations.append(f"{split}={folder / f'{split}.json'}")
        pack(annotations, images, tags, folder / "data", shard_bytes=shard_bytes)
        return folder / "data"

    return pack_them


@pytest.fixture
def pack_records(_packer: PackRecords) -> PackRecords:
    """``pack_records(train, validation, test, images=..., tags=...)``: a new packed dataset of these records."""
    return _packer


@pytest.fixture(scope="session")
def tiny_data(_packer: PackRecords) -> Path:
    """The 24 records packed into several shards a split; clean but for the one tag without an image."""
    everything = all_records()
    return _packer(everything[:12], everything[12:18], everything[18:])


@pytest.fixture(scope="session")
def tiny_audit(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the audit stage for ``tiny_data``, with a verdict that passed."""
    out = tmp_path_factory.mktemp("audited") / "audit"
    settings = AuditSettings(max_missing_tags_share=0.2, rare_below=2, workers=1)
    stage = next(s for s in STAGES if s.name == "audit")
    assert execute(stage, settings, {"data": str(tiny_data)}, str(out)).passed
    return out


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """``copy_of(directory)``: a copy that a test may damage."""

    def copy(directory: Path) -> Path:
        return Path(shutil.copytree(directory, tmp_path / f"copy-of-{directory.name}"))

    return copy


@pytest.fixture(scope="session")
def _s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


_NUMBERS = itertools.count(1)


@pytest.fixture
def bucket(_s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket of a real S3 endpoint, and the environment that leads to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", _s3_endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:50] + f"-{next(_NUMBERS)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def faults(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the endpoint of ``bucket`` that fails as it is told, and an environment of short patience."""
    with fault_proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
        monkeypatch.setenv("RAMFLOW_S3_TIMEOUT", "1")
        yield proxy
