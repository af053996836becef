import re

import numpy as np
import pytest

from raysparse.report.scatter import Plane, Points, draw_plane, legend_of, log_ticks, outlying, shows_reference

SIZE = (5.4, 3.5)


def points(xs: list[float], ys: list[float], **given: object) -> Points:
    look: dict[str, object] = {"label": "a", "colour": "#0072B2"}
    # What a test gives is any of the fields, each of another type.
    return Points(x=np.array(xs), y=np.array(ys), **(look | given))  # type: ignore[arg-type]


def names_of(svg: str) -> dict[str, tuple[float, float]]:
    """Names in a drawing with the middle of their boxes."""
    found = re.findall(
        r'x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>|translate\(([\d.]+) ([\d.]+)\)[^>]*>([^<]+)<', svg
    )
    return {left[2] or left[5]: (float(left[0] or left[3]), float(left[1] or left[4])) for left in found}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e3, 1e6, [1e3, 1e4, 1e5, 1e6]),
        (9e4, 6e6, [1e5, 3e5, 1e6, 3e6]),
        (1.2e5, 9e5, [1.5e5, 2e5, 3e5, 5e5, 7e5]),
        (1.0, 1e20, [1.0, 1e3, 1e6, 1e9, 1e12, 1e15, 1e18]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low: float, high: float, ticks: list[float]):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_a_value_far_off_is_a_triangle_at_the_edge():
    heights = [0.45 + 0.001 * place for place in range(30)]
    plane = Plane("x", "y", [points(list(range(31)), [*heights, 4.0])])
    assert outlying(plane) == 1
    assert outlying(Plane("x", "y", [points(list(range(30)), heights)])) == 0
    texts = re.findall(r">(0\.\d+)</text>", draw_plane(plane, "t", SIZE))
    assert max(map(float, texts)) < 0.5


def test_a_line_does_not_change_what_is_far_off():
    random = np.random.default_rng(0)
    heights = [*(0.45 + 0.002 * random.standard_normal(98)), 0.5, 0.5]
    trials, best = points(list(range(100)), heights), points([0, 100], [0.44, 0.43], symbol="", joined=True)
    assert outlying(Plane("x", "y", [trials])) == 2
    assert outlying(Plane("x", "y", [trials, best])) == 2


def test_names_do_not_meet():
    xs, ys = [1.0, 1.001, 1.002, 1.0, 3.0], [0.5, 0.5, 0.5005, 0.4999, 0.6]
    plane = Plane("x", "y", [points(xs, ys, names=["n1", "n2", "n3", "n4", "far"])])
    places = names_of(draw_plane(plane, "t", SIZE))
    named = [places[name] for name in ("n1", "n2", "n3", "n4")]
    for place, (x, y) in enumerate(named):
        for other_x, other_y in named[place + 1 :]:
            assert abs(x - other_x) > 9 or abs(y - other_y) > 8


def test_a_name_stays_off_the_line_and_the_other_points():
    line = points([0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.5], symbol="", joined=True)
    plane = Plane("x", "y", [line, points([2.0], [1.0], names=["here"])])
    x, y = names_of(draw_plane(plane, "t", SIZE))["here"]
    alone = names_of(draw_plane(Plane("x", "y", [points([0, 2, 3], [3, 1, 0.5], names=["", "here", ""])]), "t", SIZE))
    # a point alone has its name on the right, where this one has the line
    assert abs(y - alone["here"][1]) > 6 or x < alone["here"][0] - 20


def test_one_point_alone_can_be_drawn():
    for log_x in (False, True):
        svg = draw_plane(Plane("MACs", "loss", [points([5e4], [0.45], names=["1"])], log_x=log_x), "t", SIZE)
        assert ">1</text>" in svg


def test_points_that_are_missing_are_left_out():
    plane = Plane("x", "y", [points([1.0, 2.0, 3.0], [0.4, np.nan, 0.5], names=["a", "b", "c"])])
    svg = draw_plane(plane, "t", SIZE)
    assert ">a</text>" in svg
    assert ">b</text>" not in svg


def test_the_reference_is_shown_where_it_leaves_a_fifth():
    near, far = (Plane("x", "y", [points([1, 2], [0.5, 0.6])], reference=value) for value in (0.3, 0.05))
    assert shows_reference(near)
    assert not shows_reference(far)


def test_the_legend_shows_symbols_and_lines():
    plane = Plane("x", "y", [points([1], [1], symbol="■"), points([1], [1], label="front", symbol="")])
    assert [(line.label, line.symbol) for line in legend_of(plane)] == [("a", "■"), ("front", "")]


def test_the_colours_are_the_pages():
    svg = draw_plane(Plane("x", "y", [points([1, 2], [1, 2], colour="var(--muted)")]), "t", SIZE)
    assert "var(--muted)" in svg
    assert "#01020" not in svg
