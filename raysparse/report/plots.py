"""Drawing values over days: lines, points and bars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from raysparse.report.day_axis import label_days, positions, shade
from raysparse.report.svg import BAND, INK, MUTED, STYLE, drawn_colour, to_svg

Floats = NDArray[np.float64]

ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with any colour vision; without black and yellow, lost on dark or on white."""
ARM_DASHES = ("solid", "dashed", "dotted")
"""Arms beyond the colours take the same ones again with the next dash."""
MOST_MARKED_DAYS = 60
"""Up to so many days each is a dot on the line; above, the line is a rolling mean over a pale daily one."""
ROLLING_DAYS = 7

# Values further than so many interquartile ranges from the middle half would flatten all others.
_OUTLYING_RANGES = 8.0
# More of them than this are no accidents but what the chart has to show, such as one arm that drifts away.
_MOST_OUTLYING = 0.05


@dataclass(frozen=True)
class Line:
    """One line of a panel and its entry in the legend."""

    label: str
    values: Floats
    """`[num_days]`, NaN where the day has none."""
    colour: str = "var(--ink)"
    dash: str = "solid"
    marked: NDArray[np.bool_] | None = None
    """Days on which the line carries a diamond, `[num_days]`."""
    symbol: str = ""
    """What the legend shows in place of a dash."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes over the days of a run."""

    y_label: str
    lines: Sequence[Line] = ()
    bars: Floats | None = None
    """`[num_days]`, drawn from zero."""
    reference: float | None = None
    """Where a dashed line is drawn, if that leaves the other lines a fifth of the height."""
    bounds: Sequence[Line] = ()
    """Daily values drawn as thin dotted lines, never smoothed."""
    from_zero: bool = False
    steps: bool = False
    """Whether values hold until they change: drawn as steps, never smoothed."""
    points: bool = False
    """Whether each value is a point of its own, never joined and never smoothed."""
    number_text: Callable[[float], str] | None = None
    """How the numbers on the axis are written; as they are where left out."""


def arm_line(label: str, values: Floats, position: int) -> Line:
    """Return the line of the arm at this position in the run's list of arms, in its own colour on every chart."""
    repeat, colour = divmod(position, len(ARM_COLOURS))
    return Line(label, values, ARM_COLOURS[colour], ARM_DASHES[repeat % len(ARM_DASHES)])


def rolling_mean(values: Floats, days: int = ROLLING_DAYS) -> Floats:
    """Mean of the last `days` values up to each, `[num_days]`, leaving out NaN; NaN where all of them are."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    sums[days:] -= sums[:-days].copy()
    counts[days:] -= counts[:-days].copy()
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def draw(
    days: Sequence[str], panels: Sequence[Panel], title: str, size: tuple[float, float], shaded: NDArray[np.bool_]
) -> str:
    """Draw panels above each other over the same days and return one `<svg>` element, without scripts or references.

    `size` is in inches, `shaded` (`[num_days]`) marks the warm-up days; `title` is what a screen reader says.
    """
    x = positions(days)
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            shade(axes, x, shaded)
            _draw_panel(axes, x, panel)
        label_days(rows[-1], x, days, size[0])
        figure.align_ylabels()
        return to_svg(figure, title)


def shows_reference(panel: Panel) -> bool:
    """Tell whether the panel's dashed line is inside its axes; a panel without values shows none."""
    return panel.reference is not None and is_near(panel.reference, _shown_values(panel))


def is_near(reference: float, values: Floats) -> bool:
    """Tell whether an axis of values can also show a reference, and leave them a fifth of its length."""
    if not len(values):
        return False
    low, high = range_of(values)
    reach = max(high, reference) - min(low, reference)
    return high == low or high - low >= reach / 5


def outlying(panel: Panel) -> int:
    """Count the values outside the panel's axes, which are drawn as triangles at the edge."""
    low, high = range_of(_shown_values(panel))
    return sum(int(np.sum((line.values < low) | (line.values > high))) for line in panel.lines)


def range_of(values: Floats) -> tuple[float, float]:
    """Lowest and highest value, without those that lie far outside the middle half of many."""
    if not len(values):
        return np.nan, np.nan
    if len(values) >= 12:
        first, third = np.percentile(values, (25, 75))
        reach = _OUTLYING_RANGES * (third - first)
        near = (values >= first - reach) & (values <= third + reach)
        if reach > 0 and near.mean() >= 1 - _MOST_OUTLYING:
            values = values[near]
    return float(values.min()), float(values.max())


def _draw_panel(axes: Axes, x: Floats, panel: Panel) -> None:
    axes.set_ylabel(panel.y_label)
    axes.grid(visible=False, axis="x")
    for line in panel.lines:
        _draw_line(axes, x, line, panel)
    for bound in panel.bounds:
        axes.plot(x, bound.values, color=MUTED, linewidth=1.3, linestyle="dotted")
    if panel.bars is not None:
        axes.bar(x, panel.bars, width=0.8, color=BAND, linewidth=0)
    _set_limits(axes, x, panel)
    if panel.number_text is not None:
        text = panel.number_text
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    else:
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")


def _draw_line(axes: Axes, x: Floats, line: Line, panel: Panel) -> None:
    colour = drawn_colour(line.colour)
    if panel.points:
        size = 4.5 if len(x) <= MOST_MARKED_DAYS else 3.0
        axes.plot(x, line.values, color=colour, linestyle="none", marker="o", markersize=size, alpha=0.8)
    elif panel.steps:
        axes.step(x, line.values, where="mid", color=colour, linewidth=1.5, linestyle=line.dash)
    elif len(x) > MOST_MARKED_DAYS:
        axes.plot(x, line.values, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(x, rolling_mean(line.values), color=colour, linewidth=1.5, linestyle=line.dash)
    else:
        axes.plot(x, line.values, color=colour, linewidth=1.4, linestyle=line.dash, marker="o", markersize=3.2)


def _set_limits(axes: Axes, x: Floats, panel: Panel) -> None:
    low, high = range_of(_shown_values(panel))
    if not np.isfinite(low):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        return
    for line in panel.lines:
        for edge, beyond, marker in ((low, line.values < low, "v"), (high, line.values > high, "^")):
            if beyond.any():
                axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, color=drawn_colour(line.colour), markersize=4)
    if shows_reference(panel) and panel.reference is not None:
        axes.axhline(panel.reference, color=MUTED, linewidth=1.0, linestyle=(0, (5, 4)))
        low, high = min(low, panel.reference), max(high, panel.reference)
    from_zero = panel.from_zero or panel.bars is not None
    low = 0.0 if from_zero else low
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low if from_zero else low - margin, high + margin)
    for line in panel.lines:
        _mark_days(axes, x, line)


def _mark_days(axes: Axes, x: Floats, line: Line) -> None:
    """Put a diamond on the line, at the edge where the line is beyond it."""
    if line.marked is None:
        return
    few = len(x) <= MOST_MARKED_DAYS
    values = line.values if few else rolling_mean(line.values)
    marked = line.marked & np.isfinite(values)
    heights = np.clip(values[marked], *axes.get_ylim())
    axes.plot(
        x[marked],
        heights,
        linestyle="none",
        marker="D",
        markersize=5.5 if few else 3.0,
        markerfacecolor=drawn_colour(line.colour),
        markeredgecolor=INK,
        markeredgewidth=1.0 if few else 0.4,
        zorder=3,
    )


def _shown_values(panel: Panel) -> Floats:
    series = [line.values for line in (*panel.lines, *panel.bounds)] + ([] if panel.bars is None else [panel.bars])
    values = np.concatenate(series) if series else np.empty(0)
    return values[np.isfinite(values)]
