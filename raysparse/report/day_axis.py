"""The days of a run as an axis, the same below every chart."""

import re
from collections.abc import Sequence
from datetime import date

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from raysparse.report.svg import BAND

Floats = NDArray[np.float64]

_POINTS_PER_INCH = 72
_POINTS_PER_LETTER = 6.0


def shade(axes: Axes, x: Floats, shaded: NDArray[np.bool_]) -> None:
    """Put a band behind the days in `shaded`, `[num_days]`."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], shaded, [False])).astype(int)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        axes.axvspan(float(x[first]) - 0.5, float(x[after - 1]) + 0.5, color=BAND, alpha=0.35, linewidth=0, zorder=0)


def positions(days: Sequence[str]) -> Floats:
    """Dates at their distance in days, other names one after another, `[num_days]`."""
    dates = _dates(days)
    return np.arange(len(days), dtype=float) if dates is None else np.array([float(day.toordinal()) for day in dates])


def _dates(days: Sequence[str]) -> list[date] | None:
    if not all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) for day in days):
        return None
    try:
        return [date.fromisoformat(day) for day in days]
    except ValueError:
        return None


def label_days(axes: Axes, x: Floats, days: Sequence[str], inches: float) -> None:
    """Label as many days as go beside each other on so many inches; the axis is as long as the days are."""
    axes.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    dates = _dates(days)
    letters = max(len(day) for day in days) if dates is None else len("Jan 01")
    most = max(2, int((inches - 0.8) * _POINTS_PER_INCH / ((letters + 2) * _POINTS_PER_LETTER)))
    if dates is not None and x[-1] - x[0] > 70:
        months = [date(year, month, 1) for year in range(dates[0].year, dates[-1].year + 1) for month in range(1, 13)]
        months = [month for month in months if dates[0] <= month <= dates[-1]]
        ticks = months[:: -(-len(months) // most)]
        axes.set_xticks([month.toordinal() for month in ticks], _with_years(ticks, "%b"))
        return
    picked = range(0, len(days), -(-len(days) // most))
    labels = [days[i] for i in picked] if dates is None else _with_years([dates[i] for i in picked], "%b %d")
    axes.set_xticks([x[i] for i in picked], labels)


def _with_years(dates: Sequence[date], pattern: str) -> list[str]:
    """Write dates without their year, and put it under the first date of each year."""
    years = [None, *(day.year for day in dates[:-1])]
    return [
        day.strftime(pattern) + (f"\n{day.year}" if day.year != before else "")
        for day, before in zip(dates, years, strict=True)
    ]
