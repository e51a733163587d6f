"""Series of noisy figures: running medians, and what stands out of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NORMAL = 1.4826
"""A normal deviation over the median absolute deviation."""


def running_median(values: Floats, window: int) -> Floats:
    """Median of the ``window`` values around each (fewer at the ends), itself left out; ``values`` are finite."""
    half = window // 2
    padded = np.pad(values, half, constant_values=np.nan)
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).copy()
    near[:, half] = np.nan
    return np.nanmedian(near, axis=1) if len(values) > 1 else values.copy()


def trailing_median(values: Floats, window: int) -> Floats:
    """Median of the ``window`` values before each, fewer at the start; infinity for the first."""
    padded = np.pad(values[:-1], (window, 0), constant_values=np.nan)
    medians = np.full(len(values), np.inf)
    near = np.lib.stride_tricks.sliding_window_view(padded, window)
    medians[1:] = np.nanmedian(near[1:], axis=1)
    return medians


def relative_residuals(values: Floats, window: int) -> Floats:
    """How far each value is from its running median, as a share of it."""
    medians = running_median(values, window)
    return (values - medians) / np.maximum(np.abs(medians), 1e-12)


def robust_deviation(values: Floats) -> float:
    """Deviation that single outliers do not move."""
    return float(NORMAL * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def fall(values: Floats) -> float:
    """By what share the median of the last quarter is below that of the second quarter; negative when it rose."""
    quarter = max(1, len(values) // 4)
    before, after = np.median(values[quarter : 2 * quarter]), np.median(values[-quarter:])
    return float(1 - after / before) if before else 0.0
