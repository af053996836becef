import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raysparse.report.charts import run_charts
from raysparse.report.heat_map import MOST_COLUMNS, NUM_LEVELS, HeatMap, cells_of, days_per_column, draw_heat_map
from tests.report.runs import record
from tests.report.test_plots import history_of


def test_days_of_one_colour_are_one_cell():
    shares = np.array([[0.15, 0.16, 1.0, np.nan, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    cells = cells_of(np.arange(5.0), shares)
    np.testing.assert_array_equal(cells.places, [0, 0, 0, 1])
    np.testing.assert_array_equal(cells.levels, [3, 19, 19, 0])
    np.testing.assert_array_equal(cells.edges, [[-0.5, 1.5], [1.5, 2.5], [3.5, 4.5], [-0.5, 4.5]])


def test_days_that_the_stream_lacks_stay_empty():
    cells = cells_of(np.array([0.0, 1.0, 7.0]), np.full((1, 3), 0.5))
    np.testing.assert_array_equal(cells.edges, [[-0.5, 1.5], [6.5, 7.5]])


def test_many_days_share_columns_of_their_mean():
    num_days = 3 * MOST_COLUMNS - 1
    assert [days_per_column(days) for days in (1, MOST_COLUMNS, MOST_COLUMNS + 1, num_days)] == [1, 1, 2, 3]
    shares = np.zeros((1, num_days))
    shares[0, :3] = [0.3, 0.6, np.nan]
    shares[0, -2:] = 1.0
    cells = cells_of(np.arange(float(num_days)), shares)
    np.testing.assert_array_equal(cells.levels, [9, 0, 19])
    np.testing.assert_array_equal(cells.edges, [[-0.5, 2.5], [2.5, num_days - 2.5], [num_days - 2.5, num_days - 0.5]])


@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(0.0, 1.0)))
def test_cells_cover_every_day_with_its_own_share(shares: np.ndarray):
    cells = cells_of(np.arange(float(shares.shape[1])), shares)
    seen = np.full(shares.shape, -1)
    for (left, right), place, level in zip(cells.edges, cells.places, cells.levels, strict=True):
        days = slice(int(left + 0.5), int(right + 0.5))
        assert (seen[place, days] == -1).all()
        seen[place, days] = level
    assert (seen >= 0).all()
    assert np.all(shares >= seen / NUM_LEVELS - 1e-9)
    assert np.all(shares <= (seen + 1) / NUM_LEVELS + 1e-9)


def test_the_drawing_names_its_places_and_its_unit_and_grows_with_them():
    def svg_of(num_places: int) -> str:
        names = [f"top.{i}<" for i in range(num_places)]
        last = [f"{i} of 9" for i in range(num_places)]
        heat_map = HeatMap(names, np.full((num_places, 2), 0.5), last, "groups kept (%)")
        return draw_heat_map(["1", "2"], heat_map, "kept", 5.0, np.zeros(2, bool))

    def height(svg: str) -> float:
        found = re.search(r'viewBox="0 0 360 ([0-9.]+)"', svg)
        assert found is not None
        return float(found[1])

    small, large = svg_of(2), svg_of(40)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", small)
    assert {"top.0&lt;", "top.1&lt;", "0 of 9", "1 of 9", "groups kept (%)", "100"} <= set(texts)
    assert height(large) > 3 * height(small)
    assert "<image" not in small


def test_each_pruned_arm_has_a_heat_map_with_what_it_keeps_on_the_last_day():
    groups = {"pairs": 351, "top.0": 64}
    lines = [record(day, "trained") for day in ("1", "2", "3")]
    lines += [record("2", "sparse", widths={"pairs": 100, "top.0": 16}, groups=groups)]
    lines += [record("3", "sparse", widths={"pairs": 90, "top.0": 32}, groups=groups)]
    lines += [record("3", "unsized", widths={"pairs": 90})]
    charts = [chart for chart in run_charts(history_of(*lines)) if chart.title.startswith("Groups kept")]
    assert [chart.title for chart in charts] == ["Groups kept by sparse"]
    assert re.findall(r">(\d+ of \d+)<", charts[0].svg) == ["90 of 351", "32 of 64"]


def test_a_place_that_comes_and_goes_is_blank_where_it_is_missing():
    lines = [record("1", "a", widths={"x": 1}, groups={"x": 2, "y": 4})]
    lines += [record("2", "a", widths={"x": 2, "y": 3}, groups={"x": 2, "y": 4})]
    lines += [record("3", "a")]
    chart = next(chart for chart in run_charts(history_of(*lines)) if chart.title == "Groups kept by a")
    assert re.findall(r">(\d+ of \d+)<", chart.svg) == ["2 of 2", "3 of 4"]
