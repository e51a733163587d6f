"""Robust statistics of short series: medians that outliers do not move, trends, the strongest period."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
TO_SIGMA = 1.4826
"""The median absolute deviation times this is the standard deviation of normal noise."""


def medians(values: Array) -> Array:
    """Medians of the columns [rows, columns] -> [columns]; np.median at a third of the cost."""
    middle = len(values) // 2
    if len(values) % 2:
        return np.partition(values, middle, axis=0)[middle]
    ordered = np.partition(values, (middle - 1, middle), axis=0)
    return (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Array, middles: Array) -> Array:
    """Median absolute deviations from ``middles`` [columns], as standard deviations of normal noise."""
    return TO_SIGMA * medians(np.abs(values - middles))


def rise(values: Array) -> tuple[float, float]:
    """Theil and Sen's slope over the whole series, and Mann and Kendall's z of there being any trend."""
    n = len(values)
    first, second = np.triu_indices(n, 1)
    differences = values[second] - values[first]
    slope = float(np.median(differences / (second - first)))
    z = float(np.sign(differences).sum()) / (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
    return slope * (n - 1), z


def fall(values: Array) -> tuple[float, float]:
    """How far a straight line through the values falls from first to last, and the standard error of that."""
    time = np.linspace(-0.5, 0.5, len(values))
    steps = np.diff(values)
    noise = float(spread(steps[:, None], medians(steps[:, None]))[0]) / 2**0.5
    squares = float(time @ time)
    return -float(time @ values) / squares, noise / squares**0.5


def swing(values: Array) -> tuple[float, float, float]:
    """Share of the strongest period in the variance around a parabola, its amplitude, its length in values.

    Outliers are cut at four deviations; periods of more than a third of the series are trends, not swings. In white
    noise a share above ``30 / (len(values) / 2)`` has a probability under 1e-8.
    """
    n = len(values)
    time = np.linspace(-1, 1, n)
    rest = values - np.polyval(np.polyfit(time, values, 2), time)
    limit = 4 * float(spread(rest[:, None], np.zeros(1))[0])
    rest = np.clip(rest, -limit, limit)
    power = np.abs(np.fft.rfft(rest - rest.mean())) ** 2
    total = float(power[1:].sum())
    if total <= 0:
        return 0.0, 0.0, float(n)
    three = np.convolve(power, np.ones(3), "same")
    at = 3 + int(np.argmax(three[3:-1]))
    share = float(three[at]) / total
    return share, (2 * share * float(rest.var())) ** 0.5, n / at
