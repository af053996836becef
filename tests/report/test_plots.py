import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raysparse.report.charts import relative_gap, run_charts
from raysparse.report.plots import ARM_COLOURS, Line, Panel, arm_line, draw, outlying, rolling_mean, shows_reference
from raysparse.report.run import NUMBERS, DayRecord, History
from tests.report.runs import record


def history_of(*lines: dict[str, Any]) -> History:
    return History(
        [
            DayRecord(
                str(line["day"]),
                str(line["arm"]),
                1000,
                {name: value for name, value in line.items() if name in NUMBERS},
                False,
                line.get("swapped"),
                *(line.get(name, {}) for name in ("widths", "groups", "kept_table_rows", "table_rows")),
            )
            for line in lines
        ]
    )


def test_rolling_mean_of_known_values():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    np.testing.assert_allclose(rolling_mean(values), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])


def test_rolling_mean_leaves_out_missing_days():
    values = np.array([np.nan, 2.0, np.nan, 4.0, np.nan, np.nan])
    np.testing.assert_allclose(rolling_mean(values, 2), [np.nan, 2.0, 2.0, 4.0, 4.0, np.nan])


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.one_of(st.just(np.nan), st.floats(-100, 100))),
    st.integers(1, 9),
)
def test_rolling_mean_is_the_mean_of_each_window(values: np.ndarray, days: int):
    windows = [values[max(0, i + 1 - days) : i + 1] for i in range(len(values))]
    expected = [window[~np.isnan(window)].mean() if (~np.isnan(window)).any() else np.nan for window in windows]
    np.testing.assert_allclose(rolling_mean(values, days), expected, atol=1e-9)


def test_relative_gap_in_percent():
    np.testing.assert_allclose(
        relative_gap(np.array([0.9, np.nan, 1.0]), np.array([0.8, 0.9, 0.0])), [12.5, np.nan, np.nan]
    )


def test_arms_differ_in_colour_or_dash():
    lines = [arm_line("", np.empty(0), position) for position in range(3 * len(ARM_COLOURS))]
    assert len({(line.colour, line.dash) for line in lines}) == len(lines)
    assert lines[0].colour == ARM_COLOURS[0]


@pytest.mark.parametrize(
    ("values", "shown"), [([0.75, 0.85], True), ([0.79, 0.8], False), ([0.9, 1.1], True), ([0.8], True), ([], False)]
)
def test_the_reference_is_left_out_where_it_would_flatten_the_lines(values: list[float], shown: bool):
    assert shows_reference(Panel("NE", [Line("", np.array(values))], reference=1.0)) is shown


def test_a_value_far_from_all_others_does_not_stretch_the_axis():
    values = 0.8 + 0.01 * np.sin(np.arange(30.0))
    assert outlying(Panel("NE", [Line("", values)])) == 0
    values[7] = 12.0
    assert outlying(Panel("NE", [Line("", values)])) == 1
    svg = draw(
        [f"{i:03d}" for i in range(30)], [Panel("NE", [arm_line("a", values, 0)])], "t", (5, 2), np.zeros(30, bool)
    )
    labels = [float(text) for text in re.findall(r">(0\.\d+|\d+\.\d*)<", svg)]
    assert labels
    assert max(labels) < 0.9


def test_a_line_in_the_pages_colour_keeps_it_where_its_values_lie_beyond_the_edge():
    values = 0.8 + 0.01 * np.sin(np.arange(30.0))
    values[7] = 12.0
    marked = np.arange(30) == 3
    svg = draw(
        [f"{i:03d}" for i in range(30)],
        [Panel("NE", [Line("", values, marked=marked)])],
        "t",
        (5, 2),
        np.zeros(30, bool),
    )
    # Its line, the diamond of the marked day, and the triangle at the edge.
    assert svg.count("var(--ink)") >= 3


def test_an_arm_that_drifts_away_is_not_outlying():
    steady, away = 0.1 * np.sin(np.arange(40.0)), np.linspace(0.0, 9.0, 40)
    lines = [Line(str(i), steady) for i in range(5)] + [Line("static", away)]
    assert outlying(Panel("gap", lines)) == 0


def test_a_swap_is_marked_on_its_line_and_in_the_legend():
    days = [f"{i:02d}" for i in range(6)]
    dense = [record(day, "trained", ne=0.8) for day in days]
    arms = [record(day, "sparse", ne=0.82, swapped=day == "03" or None) for day in days[2:]]
    arms += [record(day, "late", ne=0.84, swapped=False if day == "04" else None) for day in days[4:]]
    chart = {chart.title: chart for chart in run_charts(history_of(*dense, *arms))}[
        "NE gap to trained, above 0 is worse"
    ]
    sparse, late, mark, *_ = chart.legend
    np.testing.assert_allclose(sparse.values, [np.nan, np.nan, 2.5, 2.5, 2.5, 2.5])
    np.testing.assert_array_equal(sparse.marked, [False, False, False, True, False, False])
    assert late.marked is not None
    assert not late.marked.any()
    assert (mark.symbol, mark.label) == ("◆", "mask swapped: first day under the new one")


@pytest.mark.parametrize("num_days", [5, 100])
def test_a_mark_adds_one_diamond_to_the_drawing(num_days: int):
    values, marked = np.linspace(0.0, 1.0, num_days), np.zeros(num_days, bool)
    marked[2] = True
    days = [f"{i:03d}" for i in range(num_days)]

    def num_markers(line: Line) -> int:
        return draw(days, [Panel("gap", [line])], "t", (5, 2), np.zeros(num_days, bool)).count("<use ")

    line = arm_line("a", values, 0)
    assert num_markers(replace(line, marked=marked)) == num_markers(line) + 1
    assert num_markers(replace(line, marked=~marked & False)) == num_markers(line)


def test_churn_is_shown_in_percent_where_a_mask_was_swapped():
    dense = [record(day, "trained") for day in ("1", "2", "3")]
    arms = [record("2", "static", swapped=False), record("3", "static")]
    arms += [record("2", "sparse", swapped=False), record("3", "sparse", swapped=True, churn=0.125)]
    chart = next(chart for chart in run_charts(history_of(*dense, *arms)) if "churn" in chart.title)
    assert [line.label for line in chart.legend] == ["sparse"]
    np.testing.assert_array_equal(chart.legend[0].values, [np.nan, np.nan, 12.5])
    assert any("null above 0" in note for note in chart.notes)


def pruned_rows(day: str, kept: dict[str, int], row_bytes: dict[str, int]) -> dict[str, Any]:
    """A line of an arm with tables of 100 and of 300 rows."""
    rows = {"user": 100, "item": 300}
    return record(
        day,
        "trained",
        kept_rows=sum(kept.values()),
        kept_row_bytes=sum(count * row_bytes[table] for table, count in kept.items()),
        table_bytes=sum(count * row_bytes[table] for table, count in rows.items()),
        remapping_bytes=sum(4 * count for table, count in rows.items() if kept[table] < count),
        kept_table_rows=kept,
        table_rows=rows,
    )


def test_rows_kept_and_their_bytes_are_shown_in_percent_of_all_tables():
    sizes = {"user": 96, "item": 8}  # bytes of a row: 12,000 of all
    history = history_of(
        pruned_rows("1", {"user": 100, "item": 300}, sizes), pruned_rows("2", {"user": 50, "item": 30}, sizes)
    )
    chart = next(chart for chart in run_charts(history) if chart.title == "Rows kept by trained")
    assert [(line.label, line.dash) for line in chart.legend] == [
        ("rows", "solid"),
        ("their bytes", "dashed"),
        ("their bytes, with the remapping that a served table needs", "dotted"),
    ]
    rows, row_bytes, served = (line.values for line in chart.legend)
    np.testing.assert_allclose(rows, [100, 20])
    np.testing.assert_allclose(row_bytes, [100, 42])
    np.testing.assert_allclose(served, [100, 42 + 100 * 1600 / 12_000])
    assert ">share of all tables (%)<" in chart.svg


def test_rows_that_all_take_the_same_bytes_share_a_line_with_them():
    sizes = {"user": 12, "item": 12}
    history = history_of(pruned_rows("1", {"user": 7, "item": 30}, sizes))
    chart = next(chart for chart in run_charts(history) if chart.title == "Rows kept by trained")
    assert [line.label for line in chart.legend][0] == "rows, and their bytes"
    assert len(chart.legend) == 2


def test_each_table_has_a_row_of_the_map_with_what_is_kept_on_the_last_day():
    sizes = {"user": 12, "item": 12}
    history = history_of(
        pruned_rows("1", {"user": 100, "item": 300}, sizes), pruned_rows("2", {"user": 50, "item": 30}, sizes)
    )
    chart = next(chart for chart in run_charts(history) if chart.title == "Rows kept by trained, table by table")
    assert re.findall(r">(\d+ of \d+)<", chart.svg) == ["50 of 100", "30 of 300"]
    assert {">user<", ">item<", ">rows kept (%)<"} <= set(re.findall(r">[^<>]+<", chart.svg))


def test_without_pruned_rows_there_is_no_chart_of_them():
    assert not [chart.title for chart in run_charts(history_of(record("1", "trained"))) if "Rows kept" in chart.title]


def test_many_arms_have_their_gap_over_the_whole_width():
    arms = ["trained", "static", "adaptive", "small_dense"]
    assert [chart.wide for chart in run_charts(history_of(*(record("1", arm) for arm in arms)))][1]
    assert not [chart.wide for chart in run_charts(history_of(*(record("1", arm) for arm in arms[:3])))][1]


def test_drawings_hold_text_and_take_the_colours_of_the_page():
    svg = draw(
        ["a<b", "$c$"], [Panel("NE", [arm_line("x", np.array([0.8, 0.9]), 1)])], 'a "b"', (5, 2), np.zeros(2, bool)
    )
    assert svg.startswith('<svg viewBox="0 0 360 144" role="img" aria-label="a &quot;b&quot;">')
    assert ">a&lt;b<" in svg
    assert ">$c$<" in svg
    assert "var(--muted)" in svg
    assert ARM_COLOURS[1].lower() in svg
    assert "#0102" not in svg
    assert "http" not in svg


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (["2013-12-30", "2013-12-31", "2014-01-01"], ["Dec 30", "2013", "Dec 31", "Jan 01", "2014"]),
        (["000", "001"], ["000", "001"]),
        (["2013-13-40"], ["2013-13-40"]),
    ],
)
def test_days_are_labelled(days: list[str], labels: list[str]):
    svg = draw(days, [Panel("NE", [Line("", np.full(len(days), 0.5))])], "t", (6, 2), np.zeros(len(days), bool))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts[: len(labels)] == labels


def test_months_label_a_year():
    days = [str(np.datetime64("2013-01-01") + i) for i in range(365)]
    svg = draw(days, [Panel("NE", [Line("", np.full(365, 0.5))])], "t", (11, 3), np.zeros(365, bool))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts[:4] == ["Jan", "2013", "Feb", "Mar"]
    assert "Dec" in texts


def test_charts_that_have_nothing_to_say_are_left_out():
    one_arm = history_of(record("1", "main"), record("2", "main"))
    assert [chart.title for chart in run_charts(one_arm)] == [
        "Normalized entropy, lower is better",
        "AUC, higher is better",
        "Calibration, best at 1",
        "Training speed",
        "The days: base rate and rows",
    ]


def test_a_model_that_shrinks_gets_a_chart_of_its_size():
    pruned = history_of(record("1", "main", macs=900), record("2", "main", macs=500))
    assert "Size of the model" in [chart.title for chart in run_charts(pruned)]


def test_arms_that_share_their_speed_share_a_line():
    # The arm b is forked on the second day.
    history = history_of(
        record("1", "a"), record("2", "a", samples_per_s=7e4), record("2", "b", samples_per_s=7e4, auc=0.6)
    )
    charts = {chart.title: chart for chart in run_charts(history)}
    assert [line.label for line in charts["Training speed"].legend] == ["all arms"]
    np.testing.assert_array_equal(charts["Training speed"].legend[0].values, [5e4, 7e4])
    assert [line.label for line in charts["AUC, higher is better"].legend] == ["a", "b"]
    assert [line.label for line in charts["NE gap to a, above 0 is worse"].legend] == ["b", "0: as good as a"]
