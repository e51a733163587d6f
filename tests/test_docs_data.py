"""docs/data.md run from its first command to its last, on a small set under the names of the public files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import boto3
import polars as pl
import pytest

from ramflow.storage import sha256_tree
from tests.conftest import TAGS, all_records

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
FILES = {  # the numbers of their pictures
    "coco_train_rmcocodev_ram": range(0, 6),
    "vg_ram": range(6, 9),
    "sbu_ram": range(9, 12),
    "cc3m_train_ram": range(12, 18),
    "cc3m_val_ram": range(18, 24),
}
DEAD_LINK = 14
PARAMS = "audit: {max_missing_tags_share: 0.2, max_unusable_share: 0.1, rare_below: 2, workers: 1}\n"


@pytest.fixture
def team(tmp_path, images_dir):
    """A folder with what a user has downloaded: annotations, a folder of images, and tars with captions."""
    team = tmp_path / "team"
    for folder in ("annotations", "images/shapes", "downloads/cc3m", "downloads/sbu"):
        (team / folder).mkdir(parents=True)
    (team / "ram_tag_list.txt").write_text("\n".join(TAGS), encoding="utf-8")
    (team / "params.yaml").write_text(PARAMS)
    records = all_records()
    for name, numbers in FILES.items():
        chosen = [records[n] for n in numbers]
        for n, record in zip(numbers, chosen, strict=True):
            picture = (images_dir / record["image_path"]).read_bytes()
            if name in ("coco_train_rmcocodev_ram", "vg_ram"):
                (team / "images" / record["image_path"]).write_bytes(picture)
                continue
            if n != DEAD_LINK:
                with tarfile.open(team / "downloads" / name.split("_")[0] / f"{n:05d}.tar", "w") as tar:
                    for member, data in ((f"{n:09d}.jpg", picture), (f"{n:09d}.txt", record["caption"][1].encode())):
                        info = tarfile.TarInfo(member)
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
            record["image_path"] = f"random/{n * 7919}.jpg"
        (team / "annotations" / f"{name}.json").write_text(json.dumps(chosen), encoding="utf-8")
    return team


@pytest.fixture
def environment(bucket, team, tmp_path):
    """The page's bucket, with the downloads in it, and nothing of this machine's configuration."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="my-bucket")
    client.put_bucket_versioning(Bucket="my-bucket", VersioningConfiguration={"Status": "Enabled"})
    for file in (team / "downloads").rglob("*.tar"):
        client.upload_file(str(file), "my-bucket", file.relative_to(team).as_posix())
    (tmp_path / "home").mkdir()
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return os.environ | identity | {
        "HOME": str(tmp_path / "home"), "DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "DVC_NO_ANALYTICS": "1",
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL_S3"], "RAMFLOW_CACHE": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip


def commands():
    """The page's commands, in order. The small set has two shards, so a task has one of them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    return "\n".join(blocks).replace("--per-task 64", "--per-task 1")


def test_the_page_works_from_its_first_command_to_its_last(team, environment, tmp_path):
    done = subprocess.run(["bash", "-euxo", "pipefail", "-c", commands()], cwd=team, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    missing = pl.read_parquet(team / "data" / "missing.parquet")
    assert missing["image_path"].to_list() == [f"random/{DEAD_LINK * 7919}.jpg"]
    for audit in (team / "audits/annotations", tmp_path / "another-machine/audits/streamed"):
        assert json.loads((audit / "verdict.json").read_text())["passed"], (audit / "verdict.json").read_text()
    shards = sorted(p.name for p in (team / "data").glob("*.tar"))
    assert not list((tmp_path / "cache").rglob("*-0*.tar"))  # streamed: only tables were fetched by name,
    assert len(list((tmp_path / "cache" / "shards").glob("*.tar"))) == len(shards)  # shards are in the cache
    assert sha256_tree(tmp_path / "another-machine/data") == sha256_tree(team / "data")
    assert len(list((team / "parts").iterdir())) == len(shards) == 2
    pinned = (team / "data.dvc").read_text()
    assert set(re.findall(r"relpath: (\S+)", pinned)) == {p.name for p in (team / "data").iterdir()}


def test_every_option_that_the_page_names_exists():
    page, helps = PAGE.read_text(encoding="utf-8"), ""
    for command in sorted(set(re.findall(r"ramflow ([a-z]+)", page))):
        shown = subprocess.run([sys.executable, "-m", "ramflow.cli", command, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, command
        helps += shown.stdout
    ramflow_only = re.sub(r"^(dvc|git) .*$", "", page, flags=re.MULTILINE)
    options = set(re.findall(r"--[a-z][a-z-]+", ramflow_only))
    assert len(options) > 8 and {o for o in options if not re.search(rf"{o}\b", helps)} == set()
