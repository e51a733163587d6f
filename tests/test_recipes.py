"""Every recipe is readable and changes what it says it changes."""

from pathlib import Path

import pytest

from ramflow.settings import Settings, read_settings

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", [*RECIPES, ROOT / "params.yaml"], ids=lambda p: p.stem)
def test_recipe_is_readable_and_says_what_it_costs(path):
    assert read_settings(path) != Settings()
    assert path.read_text().startswith("# ")


def test_there_is_a_recipe_for_the_published_run():
    settings = read_settings(ROOT / "recipes" / "ram_plus_swin_l_4m.yaml")
    assert settings.verify.encoder == "swin_large_patch4_window7_224"
    assert settings.train.head.hidden == 768 and settings.train.batch == 416


def test_the_recipe_for_4m_expects_the_published_counts():
    """Per source, and summed as published: 3.87 M images, 8.9 M texts, 41.8 M tags."""
    expected = read_settings(ROOT / "recipes" / "ram_plus_swin_l_4m.yaml").audit.expected
    assert set(expected) == {"coco_train_rmcocodev_ram", "vg_ram", "sbu_ram", "cc3m_train_ram", "cc3m_val_ram"}
    sums = {n: sum(getattr(e, n) for e in expected.values()) for n in ("records", "captions", "tags")}
    assert sums == {"records": 3_874_000, "captions": 8_929_000, "tags": 41_832_000}
