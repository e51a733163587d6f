"""Every recipe is readable, says what it costs by the arithmetic that it names, and changes what it says it changes."""

import re
import shlex
from pathlib import Path

import pytest

from ramflow.settings import Settings, read_settings
from ramflow.train import arithmetic

ROOT = Path(__file__).parents[1]
RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.yaml"))}
COSTED = sorted(set(RECIPES) - {"demo"})
FOUR_MILLION = [name for name in RECIPES if "_4m_" in name]
COMMAND = re.compile(r"^#     python -m ramflow\.train\.arithmetic (.+)$", re.MULTILINE)


def comment(path: Path) -> str:
    """The head of a recipe."""
    return path.read_text().partition("\n\n")[0]


def stated(path: Path) -> tuple[list[str], list[str]]:
    """The arguments of the command that a recipe names, and the lines that it says come of it."""
    head = comment(path)
    (arguments,) = COMMAND.findall(head)
    lines = [line.removeprefix("#     ") for line in head.splitlines() if line.startswith("#     ")]
    return shlex.split(arguments), lines[1:]


@pytest.mark.parametrize("path", [*RECIPES.values(), ROOT / "params.yaml"], ids=lambda p: p.stem)
def test_recipe_is_readable_and_has_a_head(path):
    assert read_settings(path) != Settings()
    assert path.read_text().startswith("# ")


def test_the_recipes_are_those_promised():
    assert set(RECIPES) == {
        "demo", "ram_plus_swin_l_4m_8xa100_40g", "ram_plus_swin_l_4m_8xa100_80g", "ram_plus_swin_b_4m_8xa100_40g",
        "finetune_384_8xa100_40g", "own_tags",
    }  # fmt: skip


def test_demo_is_the_embedded_default():
    assert read_settings(RECIPES["demo"]) == read_settings(ROOT / "params.yaml")


@pytest.mark.parametrize("name", COSTED)
def test_what_a_recipe_states_is_what_the_arithmetic_gives(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments, lines = stated(RECIPES[name])
    assert arguments[0] == f"recipes/{name}.yaml"
    arithmetic.main(arguments)
    assert capsys.readouterr().out.partition("\n\n")[0].splitlines() == lines
    assert len(lines) == 6 and "Not run by us" in comment(RECIPES[name]) and "Scores" in comment(RECIPES[name])


@pytest.mark.parametrize("name", COSTED)
def test_a_recipe_fits_on_its_card(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, lines = stated(RECIPES[name])
    micro, largest = map(int, re.search(r"micro-batch (\d+) \(largest that fits: (\d+)\)", lines[1]).groups())
    assert micro <= largest


def test_the_published_run_has_its_batches():
    large = read_settings(RECIPES["ram_plus_swin_l_4m_8xa100_40g"])
    assert large.verify.encoder == "swin_large_patch4_window7_224"
    assert (large.train.batch, large.train.balance.batch, large.train.head.hidden) == (416, 52, 768)
    base = read_settings(RECIPES["ram_plus_swin_b_4m_8xa100_40g"])
    assert base.verify.encoder == "swin_base_patch4_window7_224" and base.train.batch == 720
    tuned = read_settings(RECIPES["finetune_384_8xa100_40g"])
    assert tuned.verify.encoder_options == {"img_size": 384, "window_size": 12} and tuned.verify.interpolate
    assert (tuned.train.epochs, tuned.train.batch) == (1, 26 * 8)


@pytest.mark.parametrize("name", FOUR_MILLION)
def test_the_recipes_for_4m_expect_the_published_counts(name):
    """Per source, and summed as published: 3.87 M images, 8.9 M texts, 41.8 M tags."""
    expected = read_settings(RECIPES[name]).audit.expected
    assert set(expected) == {"coco_train_rmcocodev_ram", "vg_ram", "sbu_ram", "cc3m_train_ram", "cc3m_val_ram"}
    sums = {n: sum(getattr(e, n) for e in expected.values()) for n in ("records", "captions", "tags")}
    assert sums == {"records": 3_874_000, "captions": 8_929_000, "tags": 41_832_000}
