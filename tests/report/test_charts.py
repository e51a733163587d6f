import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ramflow.report import charts
from ramflow.report.charts import Line


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    """Coordinates of the first curve of a class."""
    for element in ET.fromstring(svg).iter("polyline"):
        if element.get("class") == kind:
            return [tuple(map(float, p.split(","))) for p in element.get("points", "").split()]  # type: ignore[misc]
    raise AssertionError(f"no curve {kind}")


def labels(svg: str, axis: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("text") if e.get("class") == axis]


def test_a_line_goes_where_its_values_are() -> None:
    svg = charts.line_chart([Line("mAP", [0, 50, 100], [0.0, 0.2, 0.4])], "mAP", zero=True)
    assert labels(svg, "y") == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert points(svg, "line s1") == [(0, 1000), (500, 500), (1000, 0)]
    assert "mAP from 0 to 0.400" in svg


def test_gaps_infinities_and_a_single_value_are_drawn_without_fault() -> None:
    svg = charts.line_chart([Line("x", [1, 2, 3, 4], [1.0, None, float("nan"), 2.0])], "x")
    assert len(points(svg, "line s1")) == 2
    assert "<circle" in charts.line_chart([Line("x", [7], [3.0])], "x")
    assert "nan" not in charts.line_chart([Line("x", [1, 2], [float("inf"), 1.0])], "x")
    assert "No values" in charts.line_chart([Line("x", [1], [None])], "x")


def test_a_logarithmic_axis_leaves_out_zeros_and_spaces_powers_evenly() -> None:
    svg = charts.line_chart([Line("norm", [1, 2, 3, 4], [0.0, 0.1, 10.0, 1000.0])], "norm", log=True)
    assert labels(svg, "y") == ["0.1", "1", "10", "100", "1,000"]
    assert [y for _, y in points(svg, "line s1")] == [1000, 500, 0]


def test_the_reference_is_always_in_view() -> None:
    svg = charts.line_chart([Line("x", [1, 2], [0.2, 0.3])], "x", reference=(1.0, "predict the mean"))
    assert float(labels(svg, "y")[-1]) >= 1.0
    assert labels(svg, "reference") == ["predict the mean"]


def test_thinning_a_long_run_keeps_its_spike() -> None:
    values = np.ones(40_000)
    values[31_234] = 900.0
    svg = charts.line_chart([Line("loss", range(40_000), values.tolist(), smooth=True)], "loss")
    raw = points(svg, "line raw s1")
    assert len(raw) < 700
    assert min(y for _, y in raw) == pytest.approx(100, abs=1)  # 900 of 1,000
    assert len(svg) < 30_000


def test_smoothing_keeps_a_straight_line_straight() -> None:
    svg = charts.line_chart([Line("x", range(101), [float(i) for i in range(101)], smooth=True)], "x")
    assert points(svg, "line s1") == points(svg, "line raw s1")


def test_counts_by_rank_fall_into_present_rare_and_missing() -> None:
    svg = charts.rank_chart([0, 100, 10, 9, 1, 0, 0, 40], 10, "counts")
    spans = {e.get("class"): e.get("d", "") for e in ET.fromstring(svg).iter("path")}
    ends = {kind: [float(x) for x in re.findall(r"H([\d.]+)", path)] for kind, path in spans.items()}
    assert ends == {"area present": [125, 250, 375], "area rare": [500, 625], "area missing": [1000]}


def test_a_rank_chart_without_any_image_is_all_missing() -> None:
    svg = charts.rank_chart([0, 0], 10, "counts")
    assert re.findall(r'class="area (\w+)"', svg) == ["missing"]


def test_labels_are_escaped() -> None:
    svg = charts.line_chart([Line("<b>", [1, 2], [1.0, 2.0], dots=True)], '"><script>', reference=(1, "<i>"))
    assert "<script" not in svg and "<b>" not in svg and "<i>" not in svg
    ET.fromstring(svg)
