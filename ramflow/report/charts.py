"""Charts as inline SVG: lines over steps, counts by rank, bars. Text keeps its size at any width of the page.

Curves live in a nested SVG that stretches (its strokes do not); labels are placed by percent, in margins that the style
sheet pads. Colours are classes, so that one chart serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ramflow.report.text import number

Floats = NDArray[np.float64]

GRID = 1000  # width and height of a stretched drawing
MOST_POINTS = 300  # a curve is thinned to the least and greatest of this many spans
SMOOTHING = 25  # the smoothed line is the mean over one part in so many of the steps


@dataclass(frozen=True)
class Line:
    """One curve: ``values`` at ``steps``, None or NaN where there is none; ``hue`` 1 to 6 picks the colour.

    With ``smooth`` the values are drawn faint under their moving mean; with ``dots`` every value is marked.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]
    hue: int = 1
    smooth: bool = False
    dots: bool = False

    def drawn(self, log: bool = False) -> tuple[Floats, Floats]:
        """Steps and values where there is a finite value, above 0 for a logarithmic axis."""
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.values, np.float64)
        keep = np.isfinite(y) & ((y > 0) | (not log))
        return x[keep], y[keep]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, drawn as an upright line; ``kind`` is its class: skip, rewind or finding."""

    step: int
    kind: str
    label: str


@dataclass(frozen=True)
class Axis:
    """A range of values, its labelled ticks, and how a value becomes a place between 0 and 1."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def place(self, values: Floats | float) -> Floats:
        """Share of the way from ``low`` to ``high``."""
        if self.log:
            return np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        return (np.asarray(values, np.float64) - self.low) / (self.high - self.low)


def line_chart(
    lines: Sequence[Line],
    about: str,
    *,
    log: bool = False,
    zero: bool = False,
    reference: tuple[float, str] | None = None,
    marks: Sequence[Mark] = (),
) -> Markup:
    """Curves over the steps of a run.

    Args:
        lines: the curves; those without a value are left out.
        about: what the chart shows, for who cannot see it; first and last values are added.
        log: a logarithmic axis of values; values of 0 and below are left out.
        zero: the axis of values starts at 0.
        reference: a value to draw a dashed line at, and its label.
        marks: what happened on the way; left out before the first and after the last value.
    """
    curves = [(line, x, y) for line in lines for x, y in [line.drawn(log)] if len(x)]
    if not curves:
        return Markup('<p class="none">No values were logged.</p>')
    shown = ([reference[0]] if reference else []) + [0.0] * zero
    values = np.concatenate([y for _, _, y in curves] + [np.asarray(shown)])
    y_axis = log_axis(values.min(), values.max()) if log else linear_axis(values.min(), values.max())
    steps = np.concatenate([x for _, x, _ in curves])
    x_axis = step_axis(steps.min(), steps.max())
    drawing = "".join(_curve(line, x_axis.place(x), y_axis, y) for line, x, y in curves)
    dots = "".join(_dots(line, x, x_axis, y_axis, y) for line, x, y in curves if line.dots or len(x) == 1)
    ends = "; ".join(f"{line.label} from {number(float(y[0]))} to {number(float(y[-1]))}" for line, _, y in curves)
    spoken = f"{about}, steps {number(float(steps.min()))} to {number(float(steps.max()))}: {ends}."
    line_at = _reference(reference, y_axis) if reference else ""
    happened = _marks([mark for mark in marks if x_axis.low <= mark.step <= x_axis.high], x_axis)
    return _figure(_y_labels(y_axis) + _x_labels(x_axis) + happened + line_at + _stretched(drawing) + dots, spoken)


def rank_chart(counts: Sequence[int], rare_below: int, about: str) -> Markup:
    """Counts from the greatest to the smallest on a logarithmic axis; rare ones and zeros in colours of their own."""
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    bounds = [0, int((ordered >= rare_below).sum()), int((ordered > 0).sum()), len(ordered)]
    most = max(float(ordered[0]), 10.0)
    axis = Axis(0.5, most * 1.3, [10.0**k for k in range(int(math.log10(most)) + 1)], log=True)
    drawing = "".join(
        _skyline(axis.place(np.maximum(ordered[a:b], 0.62)), a, len(ordered), name)
        for name, a, b in zip(("present", "rare", "missing"), bounds, bounds[1:], strict=False)
        if b > a
    )
    ranks = Axis(0.0, float(len(ordered)), [t for t in _nice(1, len(ordered), 5) if 1 <= t <= len(ordered)])
    mark = _reference((rare_below, f"rare below {rare_below}"), axis)
    return _figure(_y_labels(axis) + _x_labels(ranks) + _stretched(drawing) + mark, about)


def bar(value: float | None, kind: str = "s1", mark: float | None = None) -> Markup:
    """A horizontal bar for a share between 0 and 1, with a tick at ``mark``; its figure stands beside it as text."""
    fill = _percent(min(max(value or 0.0, 0.0), 1.0))
    tick = f'<rect class="mark" x="{_percent(mark)}" width="2" height="100%"/>' if mark is not None else ""
    return Markup(
        f'<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%" rx="2"/>'
        f'<rect class="fill {escape(kind)}" width="{fill}" height="100%" rx="2"/>{tick}</svg>'
    )


def linear_axis(low: float, high: float) -> Axis:
    """An axis that ends on round ticks."""
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    ticks = _nice(low, high, 4)
    step = ticks[1] - ticks[0]
    if ticks[0] > low + 1e-9 * step:
        ticks.insert(0, ticks[0] - step)
    if ticks[-1] < high - 1e-9 * step:
        ticks.append(ticks[-1] + step)
    return Axis(ticks[0], ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """A logarithmic axis between 1, 2 or 5 times powers of ten; ticks at the powers, or at all where those are few."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [m * 10.0**k for k in exponents for m in (1, 2, 5)]
    start = max(t for t in marks if t <= low * 1.0001)
    end = min(t for t in marks if t >= high * 0.9999 and t > start)
    powers = [10.0**k for k in exponents if start <= 10.0**k <= end]
    ticks = powers[:: -(-len(powers) // 6)] if len(powers) > 2 else [t for t in marks if start <= t <= end]
    return Axis(start, end, ticks, log=True)


def step_axis(low: float, high: float) -> Axis:
    """An axis of steps from the first to the last."""
    if high <= low:
        return Axis(low - 1, low + 1, [low])
    return Axis(low, high, [t for t in _nice(low, high, 4) if low <= t <= high])


def _nice(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values, about ``count`` of them."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(math.log(s / raw)))
    return [float(round(k * step, 12)) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _curve(line: Line, x: Floats, axis: Axis, y: Floats) -> str:
    if not line.smooth:
        return _path(*_thin(x, axis.place(y)), f"line s{line.hue}")
    raw = _path(*_thin(x, axis.place(y)), f"line raw s{line.hue}")
    return raw + _path(*_thin(x, axis.place(_moving_mean(y))), f"line s{line.hue}")


def _moving_mean(y: Floats) -> Floats:
    half = max(1, len(y) // SMOOTHING // 2)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach = np.minimum(np.minimum(at, len(y) - 1 - at), half)  # a window that stays centred to the very ends
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The least and the greatest of each span, in their order, so that no spike is lost."""
    if len(x) <= 2 * MOST_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for span in np.array_split(np.arange(len(x)), MOST_POINTS):
        kept |= {int(span[np.argmin(y[span])]), int(span[np.argmax(y[span])])}
    order = np.array(sorted(kept))
    return x[order], y[order]


def _path(x: Floats, y: Floats, kind: str) -> str:
    places = zip(np.round(x * GRID, 1), np.round((1 - y) * GRID, 1), strict=True)
    points = " ".join(f"{a:.6g},{b:.6g}" for a, b in places)
    return f'<polyline class="{kind}" points="{points}"/>'


def _skyline(heights: Floats, start: int, total: int, kind: str) -> str:
    path = [f"M{start / total * GRID:.6g},{GRID}"]
    for i, height in enumerate(heights):
        if i + 1 == len(heights) or heights[i + 1] != height:
            path.append(f"V{(1 - height) * GRID:.1f}H{(start + i + 1) / total * GRID:.6g}")
    return f'<path class="area {kind}" d="{"".join(path)}V{GRID}Z"/>'


def _dots(line: Line, x: Floats, x_axis: Axis, y_axis: Axis, y: Floats) -> str:
    places = zip(x_axis.place(x), y_axis.place(y), x, y, strict=True)
    return "".join(
        f'<circle class="dot s{line.hue}" cx="{_percent(a)}" cy="{_percent(1 - b)}" r="3">'
        f"<title>{escape(line.label)}, step {number(float(step))}: {number(float(value))}</title></circle>"
        for a, b, step, value in places
    )


def _marks(marks: Sequence[Mark], axis: Axis) -> str:
    return "".join(
        f'<line class="event {escape(mark.kind)}" x1="{x}" x2="{x}" y1="0" y2="100%">'
        f"<title>step {number(mark.step)}: {escape(mark.label)}</title></line>"
        for mark in marks
        for x in [_percent(float(axis.place(mark.step)))]
    )


def _stretched(drawing: str) -> str:
    return f'<svg viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none" width="100%" height="100%">{drawing}</svg>'


def _y_labels(axis: Axis) -> str:
    out = []
    for tick in axis.ticks:
        y = _percent(1 - float(axis.place(tick)))
        out.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        out.append(f'<text class="y" x="-8" y="{y}" dy="0.35em">{_tick(tick, axis)}</text>')
    return "".join(out)


def _x_labels(axis: Axis) -> str:
    out = []
    for tick in axis.ticks:
        place = float(axis.place(tick))
        out.append(f'<text class="x" x="{_percent(place)}" y="100%" dy="18">{number(int(tick))}</text>')
    return "".join(out)


def _reference(reference: tuple[float, str], axis: Axis) -> str:
    y = _percent(1 - float(axis.place(reference[0])))
    return (
        f'<line class="reference" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="reference" x="100%" y="{y}" dy="-5">{escape(reference[1])}</text>'
    )


def _tick(value: float, axis: Axis) -> str:
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if axis.log:
        return f"{value:,g}"
    step = axis.ticks[1] - axis.ticks[0] if len(axis.ticks) > 1 else 1.0
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9 * max(1.0, step)), 6)
    return f"{value:,.{decimals}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _figure(content: str, about: str) -> Markup:
    return Markup(f'<div class="plot"><svg class="chart" role="img" aria-label="{escape(about)}">{content}</svg></div>')
