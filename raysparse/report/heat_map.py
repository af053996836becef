"""Drawing which share of its groups or rows a pruned arm keeps, place by place and day by day."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from raysparse.report.day_axis import label_days, positions, shade
from raysparse.report.svg import INK, MUTED, STYLE, to_svg

Floats = NDArray[np.float64]

MOST_COLUMNS = 250
"""With more days than this, each column is the mean of several, about a point wide."""
NUM_LEVELS = 20
"""Steps of colour between none and all."""

_ROW_INCHES, _FRAME_INCHES, _LEAST_INCHES = 0.21, 0.75, 1.9
_LONGEST_BAR_ROWS = 12
_HALF_ROW = 0.42


@dataclass(frozen=True)
class HeatMap:
    """Places, or tables, from the top down, over the days of a run."""

    places: Sequence[str]
    shares: Floats
    """Share of each place that is kept, `[num_places, num_days]`; NaN where the day has none."""
    last: Sequence[str]
    """What stands at the end of each row."""
    label: str
    """What is kept, in percent: it stands at the bar of colours."""


@dataclass(frozen=True)
class Cells:
    """Runs of columns of one colour."""

    edges: Floats
    """Where each begins and ends on the axis of days, `[num_cells, 2]`."""
    places: NDArray[np.int64]
    """`[num_cells]`."""
    levels: NDArray[np.int64]
    """`[num_cells]`, below `NUM_LEVELS`."""


def days_per_column(num_days: int) -> int:
    """How many days a column stands for."""
    return -(-num_days // MOST_COLUMNS)


def cells_of(x: Floats, shares: Floats) -> Cells:
    """Join neighbouring columns of one colour, so that a drawing is as large as what changes in it."""
    starts, values = _columns(shares)
    lasts = np.append(starts[1:], len(x)) - 1
    left, right = x[starts] - 0.5, x[lasts] + 0.5
    # a share such as 0.15 must not fall below its step
    steps = np.minimum(np.floor(values * NUM_LEVELS + 1e-9), NUM_LEVELS - 1)
    levels = np.where(np.isfinite(values), steps, -1).astype(np.int64)
    edges, places, found = [np.empty((0, 2))], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place, row in enumerate(levels):
        first = np.flatnonzero(np.append(True, (row[1:] != row[:-1]) | (left[1:] != right[:-1])))
        last = np.append(first[1:], len(row)) - 1
        kept = row[first] >= 0
        edges.append(np.stack([left[first], right[last]], axis=1)[kept])
        places.append(np.full(int(kept.sum()), place))
        found.append(row[first][kept])
    return Cells(np.concatenate(edges), np.concatenate(places), np.concatenate(found))


def draw_heat_map(days: Sequence[str], heat_map: HeatMap, title: str, inches: float, shaded: NDArray[np.bool_]) -> str:
    """Draw it with its colour bar and return one `<svg>` element of this width; its height follows the places.

    `shaded` (`[num_days]`) marks the warm-up days; `title` is what a screen reader says.
    """
    x = positions(days)
    num_places = len(heat_map.places)
    with rc_context(STYLE):
        height = max(_FRAME_INCHES + _ROW_INCHES * num_places, _LEAST_INCHES)
        figure = Figure(figsize=(inches, height), layout="constrained")
        axes = figure.subplots()
        shade(axes, x, shaded)
        colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 1.0, NUM_LEVELS)))
        _draw_cells(axes, cells_of(x, heat_map.shares), colours)
        _label_places(axes, heat_map)
        label_days(axes, x, days, inches - 1.6)
        _draw_colour_bar(figure, axes, colours, heat_map)
        return to_svg(figure, title)


def _columns(shares: Floats) -> tuple[NDArray[np.int64], Floats]:
    """First day of each column, `[num_columns]`, and its mean share, `[num_places, num_columns]`."""
    starts = np.arange(0, shares.shape[1], days_per_column(shares.shape[1]))
    known = np.isfinite(shares)
    sums = np.add.reduceat(np.where(known, shares, 0.0), starts, axis=1)
    counts = np.add.reduceat(known.astype(np.int64), starts, axis=1)
    return starts, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _draw_cells(axes: Axes, cells: Cells, colours: ListedColormap) -> None:
    corners = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for level in np.unique(cells.levels):
        of_level = cells.levels == level
        (left, right), middle = cells.edges[of_level].T, cells.places[of_level]
        top, bottom = middle - _HALF_ROW, middle + _HALF_ROW
        outline = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        points = np.stack([np.stack(point, axis=1) for point in outline], axis=1)
        path = Path(points.reshape(-1, 2), corners * len(left))
        axes.add_patch(PathPatch(path, facecolor=colours(int(level)), linewidth=0))


def _label_places(axes: Axes, heat_map: HeatMap) -> None:
    rows = range(len(heat_map.places))
    axes.grid(visible=False)
    axes.set_ylim(len(heat_map.places) - 0.5, -0.5)
    axes.set_yticks(rows, heat_map.places, color=INK)
    ends = axes.secondary_yaxis("right")
    ends.set_yticks(rows, heat_map.last)
    ends.spines["right"].set_visible(False)


def _draw_colour_bar(figure: Figure, axes: Axes, colours: ListedColormap, heat_map: HeatMap) -> None:
    norm = BoundaryNorm(np.linspace(0.0, 100.0, NUM_LEVELS + 1), NUM_LEVELS)
    shrink = min(1.0, _LONGEST_BAR_ROWS / len(heat_map.places))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, ticks=[0, 25, 50, 75, 100], shrink=shrink)
    bar.set_label(heat_map.label, color=MUTED)
    assert bar.solids is not None
    bar.solids.set_edgecolor("face")
    bar.outline.set_visible(False)
