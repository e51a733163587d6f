"""docs/tag.md: every command works, and every option is told."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path

from ramflow.cli import main
from ramflow.tagging.command import add_options
from tests.conftest import TAGS

PAGE = (Path(__file__).parents[2] / "docs" / "tag.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()


def test_every_command_works(model, tiny_clip, images_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images_dir / "shapes", "photos/deep")
    shutil.copy(images_dir / "shapes" / "circle_red_0.jpg", "photos/cat.jpg")
    shutil.copytree(model, "train")
    shutil.copytree(tiny_clip, "clip")
    Path("ram_tag_list_chinese.txt").write_text("\n".join("甲乙丙丁戊己"), encoding="utf-8")
    Path("words.txt").write_text("zebra\nokapi\n")
    Path("descriptions.json").write_text(json.dumps([{"zebra": ["a striped horse"]}]))
    said = {}
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "ramflow" and main(words[1:]) == 0, capsys.readouterr().err
        said[command] = capsys.readouterr().out.splitlines()
    assert [len(lines) for lines in said.values()] == [26, 25, 25, 25, 0, 25, 25, 25, 25, 25]
    [both] = (lines for command, lines in said.items() if "--both" in command)
    names = {f"{name} {other}" for name, other in zip(TAGS, "甲乙丙丁戊己", strict=True)}
    assert {tag.rpartition(" ")[0] for tag in both[0].partition(": ")[2].split(", ")} < names


def test_every_option_is_told():
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert {option for option in options if not re.search(rf"[ `]{option}\b", PAGE)} == {"--help"}
