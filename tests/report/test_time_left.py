from typing import Any

import pytest

from raysparse.report.time_left import TimeLeft


def event(day_index: int, phase: str, rows_done: int, samples_per_s: float) -> dict[str, Any]:
    return {
        "day": str(day_index),
        "phase": phase,
        "rows_done": rows_done,
        "rows_of_phase": {"score": 1000, "train": 1000},
        "samples_per_s": samples_per_s,
        "day_index": day_index,
        "num_days": 10,
    }


def test_nothing_is_known_before_the_first_speed():
    left = TimeLeft()
    left.update(event(3, "score", 0, 0.0), 0.0)
    assert (left.day_s, left.run_s, left.days_done) == (None, None, 3.0)


def test_the_day_is_what_is_left_of_both_phases():
    left = TimeLeft()
    left.update(event(0, "score", 500, 200.0), 2.5)
    assert (left.day_s, left.run_s) == (None, None)  # training may be slower, or faster
    left.update(event(0, "train", 250, 100.0), 7.5)
    assert left.day_s == pytest.approx(7.5)
    assert left.run_s == pytest.approx(7.5 + 9 * 15.0)
    assert left.days_done == pytest.approx(0.5)
    left.update(event(1, "score", 500, 200.0), 20.0)
    assert left.day_s == pytest.approx(2.5 + 10.0)


def test_phases_have_rows_of_their_own():
    left = TimeLeft()
    rows = {"rows_of_phase": {"score": 2_000, "train": 5_000_000}}
    left.update(event(0, "score", 1_000, 20.0) | rows, 50.0)
    left.update(event(0, "train", 2_500_000, 5_000.0) | rows, 600.0)
    assert left.day_s == pytest.approx(500.0)
    assert left.days_done == pytest.approx(1.0 - 500.0 / 1_100.0)
    assert left.run_s == pytest.approx(500.0 + 9 * 1_100.0)


def test_where_nothing_is_learned_the_day_ends_with_its_scores():
    left = TimeLeft()
    left.update(event(9, "score", 500, 100.0) | {"rows_of_phase": {"score": 1000, "train": 0}}, 0.0)
    assert (left.day_s, left.run_s) == (pytest.approx(5.0), pytest.approx(5.0))


def test_the_days_to_come_take_what_the_days_done_took():
    left = TimeLeft()
    left.update(event(2, "train", 500, 100.0), 100.0)
    left.update(event(4, "train", 500, 100.0), 160.0)  # 30 s a day: saving and starting are in it
    assert left.run_s == pytest.approx(5.0 + 5 * 30.0)


def test_a_restart_at_an_earlier_day_starts_the_clock_anew():
    left = TimeLeft()
    left.update(event(4, "train", 500, 100.0), 0.0)
    left.update(event(2, "train", 0, 100.0), 500.0)
    left.update(event(3, "train", 0, 100.0), 520.0)
    assert left.run_s == pytest.approx(10.0 + 6 * 20.0)
