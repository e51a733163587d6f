"""The commands of docs/embeddings.md work as they stand there, and its tables name what there is."""

from __future__ import annotations

import re
import shlex

from ramflow.cli import main
from ramflow.embed.diagnosis import KINDS
from ramflow.settings import EmbedSettings
from tests.embed.planted import ROOT, sample

PAGE = (ROOT / "docs" / "embeddings.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return sorted(
        (shlex.split(line)[1:] for line in lines), key=lambda line: ("export", "import", "check").index(line[1])
    )


def test_the_commands_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    (tmp_path / "embed").mkdir()
    sample().write(tmp_path / "embed")
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 6
    for command in commands():
        assert not main(command), command
        said = capsys.readouterr()
        if command[1] == "check" and "--json" not in command:
            assert said.out.strip().endswith("answer: yes, the rows belong to their tags")


def test_every_diagnosis_and_setting_is_on_the_page():
    for kind in KINDS:
        assert f"`{kind}`" in PAGE
    for name in EmbedSettings.model_fields:
        if name.startswith("min_"):
            assert f"`{name}`" in PAGE
    for name, value in re.findall(r"`(min_\w+)` ([\d.]+)", PAGE):
        assert EmbedSettings.model_fields[name].default == float(value)
