"""Drawing points over two numbers, with names beside those that have one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from raysparse.report.plots import Line, is_near, range_of
from raysparse.report.svg import INK, MUTED, PAPER, STYLE, drawn_colour, to_svg

Floats = NDArray[np.float64]

_MARKERS = {"●": "o", "■": "s", "◆": "D", "★": "*"}
_ROUND_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
_LEAST_TICKS, _MOST_TICKS = 3, 7
_NAME_SIZE = 8.5
_POINTS_PER_INCH = 72
_PLACES = [(math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)) for turn in (0, 4, 2, 6, 1, 7, 3, 5)]
"""Directions in which a name is tried beside its point: right, left, above, below, then the corners."""
_REACHES = (7.0, 16.0, 27.0)
"""Distances of a name from its point, in points."""


@dataclass(frozen=True)
class Points:
    """Points of one kind and their entry in the legend."""

    label: str
    x: Floats
    y: Floats
    """NaN leaves a point out."""
    colour: str
    symbol: str = "●"
    """●, ■, ◆ or ★; empty where no points are drawn but their line alone."""
    size: float = 5.5
    alpha: float = 1.0
    names: Sequence[str] = ()
    """What stands beside each point; empty for points without names."""
    joined: bool = False
    """Whether a value holds until the next point to the right: the points are corners of a line."""


@dataclass(frozen=True)
class Plane:
    """A pair of axes over numbers."""

    x_label: str
    y_label: str
    points: Sequence[Points]
    log_x: bool = False
    reference: float | None = None
    """Height of a dashed line, drawn if that leaves the points a fifth of the axis."""
    mark: tuple[float, str] | None = None
    """Where a dotted line stands upright, and what is written on it."""
    number_text: Callable[[float], str] | None = None
    """How the numbers below the axis are written; as they are where left out."""


def legend_of(plane: Plane) -> list[Line]:
    """Return the entries of a plane's legend."""
    return [
        Line(points.label, np.empty(0), points.colour, symbol=points.symbol) for points in plane.points if points.label
    ]


def shows_reference(plane: Plane) -> bool:
    """Tell whether the plane's dashed line is inside its axes."""
    return plane.reference is not None and is_near(plane.reference, np.array(_heights(plane)))


def outlying(plane: Plane) -> int:
    """Count the points above or below the axes, which are drawn as triangles at the edge."""
    low, high = _heights(plane)
    return sum(int(np.sum((points.y < low) | (points.y > high))) for points in plane.points if points.symbol)


def draw_plane(plane: Plane, title: str, size: tuple[float, float]) -> str:
    """Draw a plane and return one `<svg>` element; `size` in inches, `title` is what a screen reader says."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(plane.x_label)
        axes.set_ylabel(plane.y_label)
        _set_heights(axes, plane)
        _set_widths(axes, plane)
        for order, points in enumerate(plane.points):
            _draw_points(axes, points, 2.0 + order)
        _draw_lines(axes, plane)
        figure.draw_without_rendering()  # settles where the axes lie, by which names find their places
        _draw_names(axes, plane, figure.dpi / _POINTS_PER_INCH)
        return to_svg(figure, title)


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two positive ones, as many as are told apart on a logarithmic axis."""
    ticks: list[float] = []
    for steps in _ROUND_STEPS:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**exponent for exponent in exponents for step in steps]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) > _MOST_TICKS:
            return ticks or found[:: -(-len(found) // _MOST_TICKS)]
        ticks = found
        if len(ticks) > _LEAST_TICKS:
            break
    return ticks


def _set_heights(axes: Axes, plane: Plane) -> None:
    low, high = _heights(plane)
    if shows_reference(plane) and plane.reference is not None:
        low, high = min(low, plane.reference), max(high, plane.reference)
    margin = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")


def _set_widths(axes: Axes, plane: Plane) -> None:
    values = np.concatenate([points.x for points in plane.points])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    if plane.log_x:
        margin = (high / low) ** 0.06 if high > low else 1.5
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
        axes.set_xticks(log_ticks(low / margin, high * margin))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=plane.number_text is not None))
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    text = plane.number_text
    if text is not None:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _draw_points(axes: Axes, points: Points, order: float) -> None:
    colour = drawn_colour(points.colour)
    low, high = axes.get_ylim()
    if points.joined:
        order_x = np.argsort(points.x)
        axes.step(points.x[order_x], points.y[order_x], where="post", color=colour, linewidth=1.5, zorder=order)
    if not points.symbol:
        return
    common = {"color": colour, "linestyle": "none", "alpha": points.alpha, "zorder": order, "markeredgewidth": 0}
    inside = (points.y >= low) & (points.y <= high)
    size = points.size * (1.6 if points.symbol == "★" else 1.0)
    axes.plot(points.x[inside], points.y[inside], marker=_MARKERS[points.symbol], markersize=size, **common)
    for beyond, edge, marker in ((points.y > high, high, "^"), (points.y < low, low, "v")):
        if beyond.any():
            axes.plot(
                points.x[beyond], np.full(beyond.sum(), edge), marker=marker, markersize=4, clip_on=False, **common
            )


def _draw_lines(axes: Axes, plane: Plane) -> None:
    if plane.reference is not None and shows_reference(plane):
        axes.axhline(plane.reference, color=MUTED, linewidth=1.0, linestyle=(0, (5, 4)))
    if plane.mark is not None:
        x, text = plane.mark
        left_half = x < sum(axes.get_xlim()) / 2
        axes.axvline(x, color=MUTED, linewidth=1.0, linestyle="dotted")
        axes.annotate(
            text,
            (x, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3 if left_half else -3, -8),
            textcoords="offset points",
            ha="left" if left_half else "right",
            va="top",
            color=MUTED,
            fontsize=_NAME_SIZE - 0.5,
        )


def _draw_names(axes: Axes, plane: Plane, pixels: float) -> None:
    """Put each name where it meets nothing, as near to its point as that goes; a point of type has so many pixels."""
    named = [
        (name, (x, y), axes.transData.transform((x, y)))
        for points in plane.points
        for name, x, y in zip(points.names, points.x, points.y, strict=False)
        if np.isfinite(x) and np.isfinite(y)
    ]
    places = _Places(
        frame=axes.get_window_extent(),
        pixels=pixels,
        dots=axes.transData.transform(np.concatenate([_outline(points) for points in plane.points])),
        taken=[Bbox.from_bounds(x - 4 * pixels, y - 4 * pixels, 8 * pixels, 8 * pixels) for *_, (x, y) in named],
    )
    for name, point, (x, y) in named:
        far, box = places.find((x, y), (0.58 * len(name) + 0.3) * _NAME_SIZE, 1.15 * _NAME_SIZE)
        text = axes.annotate(
            name,
            point,
            xytext=(((box.x0 + box.x1) / 2 - x) / pixels, ((box.y0 + box.y1) / 2 - y) / pixels),
            textcoords="offset points",
            ha="center",
            va="center",
            color=INK,
            fontsize=_NAME_SIZE,
            zorder=20,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 3} if far else None,
        )
        text.set_in_layout(False)  # the axes stay where they were when the place was found


def _outline(points: Points) -> Floats:
    """Points without a name, and what lies on the line that joins them, `[N, 2]`."""
    if points.names:
        return np.empty((0, 2))
    if not points.joined:
        return np.stack([points.x, points.y], axis=1)
    order = np.argsort(points.x)
    x, y = points.x[order], points.y[order]
    between = np.linspace(x[:-1], x[1:], 30)  # before the next point the line is as high as the one before it
    level = np.stack([between, np.broadcast_to(y[:-1], between.shape)], axis=2).reshape(-1, 2)
    return np.concatenate([level, np.stack([x, y], axis=1)])


@dataclass
class _Places:
    """Where in a plane there is room for names; all in pixels."""

    frame: Bbox
    pixels: float
    """Of a point of type."""
    dots: Floats
    """`[N, 2]`, what a name had better not hide."""
    taken: list[Bbox]
    """What a name must not meet."""

    def find(self, point: tuple[float, float], width: float, height: float) -> tuple[bool, Bbox]:
        """Take a place for a name of this size, in points of type; True where a line has to lead to it."""
        boxes: list[tuple[float, bool, Bbox]] = []
        half_width, half_height = width * self.pixels / 2, height * self.pixels / 2
        for distance, reach in enumerate(_REACHES):
            for right, up in _PLACES:
                middle_x = point[0] + right * (reach * self.pixels + half_width)
                middle_y = point[1] + up * (reach * self.pixels + half_height)
                box = Bbox.from_extents(
                    middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height
                )
                boxes.append((self._cost(box) + 2 * distance, distance > 0, box))
        _, far, box = min(boxes, key=lambda candidate: candidate[0])
        self.taken.append(box)
        return far, box

    def _cost(self, box: Bbox) -> float:
        frame = self.frame
        outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
        met = sum(box.overlaps(other) for other in self.taken)
        hidden = int(np.all((self.dots >= box.min) & (self.dots <= box.max), axis=1).sum())
        return 100.0 * (met + outside) + hidden


def _heights(plane: Plane) -> tuple[float, float]:
    """Lowest and highest value of all kinds of points, without what is far off among those of its kind."""
    ranges = [range_of(points.y[np.isfinite(points.y)]) for points in plane.points if np.isfinite(points.y).any()]
    return min(low for low, _ in ranges), max(high for _, high in ranges)
