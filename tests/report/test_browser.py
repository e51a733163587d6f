"""The page in headless Chromium: it draws, fits 400 pixels, and loads all its images by itself."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ramflow.report.page import write_report
from ramflow.settings import ReportSettings
from tests.report.conftest import Run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

MEASURE = """<!doctype html><iframe src="report.html" width="400" height="900" style="border:0"></iframe><pre></pre>
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, all = (s) => [...page.querySelectorAll(s)];
  document.querySelector("pre").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    outside: all("body *:not(svg *)").filter((e) => e.getBoundingClientRect().right > 401).map((e) => e.outerHTML),
    images: all("img").length, loaded: all("img").filter((i) => i.complete && i.naturalWidth > 0).length,
    curves: all("polyline").length,
    flat: all("svg.chart").filter((c) => c.getBoundingClientRect().height < 100).length,
    heading: page.querySelector(".answer").innerText, font: page.defaultView.getComputedStyle(page.body).fontSize,
  });
});
</script>"""


@pytest.fixture(scope="module")
def report(drawn_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(ReportSettings(gallery=6), {name: str(p) for name, p in drawn_run.items()}, path)
    return path


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """``browse(page, *flags)``: what Chromium prints."""

    def run(page: Path, *flags: str) -> str:
        assert BROWSER
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    return run


def test_it_fits_a_phone_and_draws_everything(report: Path, browse: Callable[..., str]) -> None:
    wrapper = report.with_name("measure.html")
    wrapper.write_text(MEASURE)
    dom = browse(wrapper, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom")
    answer = re.search(r"<pre>(.*?)</pre>", dom, re.S)
    assert answer, dom
    found: dict[str, Any] = json.loads(unescape(answer[1]))
    assert (found["width"], found["outside"]) == (400, [])
    assert (found["images"], found["loaded"], found["flat"]) == (6, 6, 0)
    assert found["curves"] >= 2 + 2 * 5 + 4 + 1  # validation, five smoothed, four norms, the rate
    assert "This run can be trusted" in found["heading"]
    assert found["font"] == "14.5px"  # the style sheet was read


@pytest.mark.parametrize(("width", "height"), [(1280, 1600), (400, 1600)])
def test_the_screenshot_is_not_blank(
    width: int, height: int, report: Path, browse: Callable[..., str], tmp_path: Path
) -> None:
    shot = tmp_path / "shot.png"
    browse(report, f"--window-size={width},{height}", f"--screenshot={shot}")
    with Image.open(shot) as image:
        assert image.size == (width, height)
        pixels = np.asarray(image.convert("RGB"), np.int32).reshape(-1, 3)
    colours, counts = np.unique(pixels @ (65536, 256, 1), return_counts=True)
    assert len(colours) > 200 and counts.max() / counts.sum() < 0.9
    bands = pixels.reshape(8, -1, 3)
    assert all(len(np.unique(band @ (65536, 256, 1))) > 20 for band in bands)  # something is drawn from top to bottom
