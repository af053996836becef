from typing import Any

import pytest

from raysparse.report.time_left import TimeLeft


def event(day_index: int, phase: str, rows_done: int, samples_per_s: float) -> dict[str, Any]:
    return {
        "day": str(day_index),
        "phase": phase,
        "rows_done": rows_done,
        "rows_total": 1000,
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
    assert left.day_s == pytest.approx(2.5 + 5.0)  # training taken to be as fast as scoring
    left.update(event(0, "train", 250, 100.0), 7.5)
    assert left.day_s == pytest.approx(7.5)
    assert left.run_s == pytest.approx(7.5 + 9 * 15.0)
    assert left.days_done == pytest.approx(0.5)


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
