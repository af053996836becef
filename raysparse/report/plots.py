"""Drawing values over days as SVG that takes its colours from the page it stands in."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with any colour vision; without black and yellow, lost on dark or on white."""
ARM_DASHES = ("solid", "dashed", "dotted")
"""Arms beyond the colours take the same ones again with the next dash."""
MOST_MARKED_DAYS = 60
"""Up to so many days each is a dot on the line; above, the line is a rolling mean over a pale daily one."""
ROLLING_DAYS = 7

# Colours that stand for one of the page's, so that one drawing is readable on a light and on a dark page.
_INK, _MUTED, _GRID, _BAND = "#010203", "#010204", "#010205", "#010206"
_PAGE_COLOURS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--grid)", _BAND: "var(--band)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "path.simplify_threshold": 0.2,
}
_POINTS_PER_INCH = 72
_POINTS_PER_LETTER = 6.0
# Values further than so many interquartile ranges from the middle half would flatten all others.
_OUTLYING_RANGES = 8.0


@dataclass(frozen=True)
class Line:
    """One line of a panel and its entry in the legend."""

    label: str
    values: Floats
    """`[num_days]`, NaN where the day has none."""
    colour: str = "var(--ink)"
    dash: str = "solid"


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
    x = _positions(days)
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            _shade(axes, x, shaded)
            _draw_panel(axes, x, panel)
        _label_days(rows[-1], x, days, size[0])
        figure.align_ylabels()
        output = io.StringIO()
        with rc_context({"svg.hashsalt": title}):
            figure.savefig(
                output, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
            )
    return _for_page(output.getvalue(), title)


def shows_reference(panel: Panel) -> bool:
    """Tell whether the panel's dashed line is inside its axes; a panel without values shows none."""
    values = _shown_values(panel)
    if panel.reference is None or not len(values):
        return False
    low, high = _range_of(values)
    reach = max(high, panel.reference) - min(low, panel.reference)
    return high == low or high - low >= reach / 5


def outlying(panel: Panel) -> int:
    """Count the values outside the panel's axes, which are drawn as triangles at the edge."""
    low, high = _range_of(_shown_values(panel))
    return sum(int(np.sum((line.values < low) | (line.values > high))) for line in panel.lines)


def _draw_panel(axes: Axes, x: Floats, panel: Panel) -> None:
    axes.set_ylabel(panel.y_label)
    axes.grid(visible=False, axis="x")
    for line in panel.lines:
        _draw_line(axes, x, line, panel.steps)
    for bound in panel.bounds:
        axes.plot(x, bound.values, color=_MUTED, linewidth=1.3, linestyle="dotted")
    if panel.bars is not None:
        axes.bar(x, panel.bars, width=0.8, color=_BAND, linewidth=0)
    _set_limits(axes, x, panel)
    if panel.number_text is not None:
        text = panel.number_text
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    else:
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")


def _draw_line(axes: Axes, x: Floats, line: Line, steps: bool) -> None:
    colour = _INK if line.colour.startswith("var(") else line.colour
    if steps:
        axes.step(x, line.values, where="mid", color=colour, linewidth=1.5, linestyle=line.dash)
    elif len(x) > MOST_MARKED_DAYS:
        axes.plot(x, line.values, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(x, rolling_mean(line.values), color=colour, linewidth=1.5, linestyle=line.dash)
    else:
        axes.plot(x, line.values, color=colour, linewidth=1.4, linestyle=line.dash, marker="o", markersize=3.2)


def _set_limits(axes: Axes, x: Floats, panel: Panel) -> None:
    low, high = _range_of(_shown_values(panel))
    if not np.isfinite(low):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=_MUTED)
        return
    for line in panel.lines:
        for edge, beyond, marker in ((low, line.values < low, "v"), (high, line.values > high, "^")):
            if beyond.any():
                axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, color=line.colour, markersize=4)
    if shows_reference(panel) and panel.reference is not None:
        axes.axhline(panel.reference, color=_MUTED, linewidth=1.0, linestyle=(0, (5, 4)))
        low, high = min(low, panel.reference), max(high, panel.reference)
    from_zero = panel.from_zero or panel.bars is not None
    low = 0.0 if from_zero else low
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low if from_zero else low - margin, high + margin)


def _shown_values(panel: Panel) -> Floats:
    series = [line.values for line in (*panel.lines, *panel.bounds)] + ([] if panel.bars is None else [panel.bars])
    values = np.concatenate(series) if series else np.empty(0)
    return values[np.isfinite(values)]


def _range_of(values: Floats) -> tuple[float, float]:
    """Lowest and highest value, without those that lie far outside the middle half of many."""
    if not len(values):
        return np.nan, np.nan
    if len(values) >= 12:
        first, third = np.percentile(values, (25, 75))
        reach = _OUTLYING_RANGES * (third - first)
        if reach > 0:
            values = values[(values >= first - reach) & (values <= third + reach)]
    return float(values.min()), float(values.max())


def _shade(axes: Axes, x: Floats, shaded: NDArray[np.bool_]) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], shaded, [False])).astype(int)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        axes.axvspan(float(x[first]) - 0.5, float(x[after - 1]) + 0.5, color=_BAND, alpha=0.35, linewidth=0, zorder=0)


def _positions(days: Sequence[str]) -> Floats:
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


def _label_days(axes: Axes, x: Floats, days: Sequence[str], inches: float) -> None:
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


def _for_page(svg: str, title: str) -> str:
    """Strip an SVG file to an element for an HTML page: page colours, no references, no ids but those it uses."""
    svg = svg[svg.index("<svg ") :]
    for placeholder, colour in _PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"\.(\d)\d+", r".\1", path[0]).replace("\n", " "), svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    element = f'<svg {view_box[0]} role="img" aria-label="{label}">' + svg[svg.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", element)
