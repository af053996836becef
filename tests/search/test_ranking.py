import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raysparse.search.ranking import kendall_chance, kendall_interval, kendall_tau

SCIPY: Any = stats.kendalltau
SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("x", "y", "tau"),
    [
        ([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5], 1.0),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], 0.8),  # 9 pairs agree, 1 does not
        ([1, 2, 3, 4], [2, 1, 4, 3], 1 / 3),
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),  # a tie: x tells 2 of 3 pairs apart
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
    ],
)
def test_tau_of_known_orders(x: list[float], y: list[float], tau: float):
    assert kendall_tau(x, y) == pytest.approx(tau, abs=1e-12)


@given(SCORES)
def test_tau_is_that_of_scipy(pairs: list[tuple[int, int]]):
    x, y = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    np.testing.assert_allclose(kendall_tau(x, y), SCIPY(x, y).statistic, atol=1e-12)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1, 1, 1], [1, 2, 3])])
def test_what_tells_nothing_apart_has_no_tau(x: list[float], y: list[float]):
    assert math.isnan(kendall_tau(x, y))
    assert all(math.isnan(end) for end in kendall_interval(x, y, 1))
    assert math.isnan(kendall_chance(x, y, 1))


def test_scores_of_other_items_are_refused():
    with pytest.raises(ValueError, match="found 2 and 3"):
        kendall_tau([1, 2], [1, 2, 3])


def test_the_interval_holds_tau_and_narrows_with_more_items():
    random = np.random.default_rng(0)
    widths: list[float] = []
    for size in (10, 40, 160):
        x = random.normal(size=size)
        y = x + random.normal(size=size)
        low, high = kendall_interval(x.tolist(), y.tolist(), seed=3)
        assert -1 <= low < kendall_tau(x.tolist(), y.tolist()) < high <= 1
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


def test_the_interval_follows_from_the_seed():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 2.0, 4.0, 6.0, 5.0]
    assert kendall_interval(x, y, 1) == kendall_interval(x, y, 1)
    assert kendall_interval([1, 2, 3], [1, 2, 3], 1) == (1.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # of two normal scores of correlation r, tau is 2 / pi * asin(r)
    truth, random = 2 / math.pi * math.asin(0.6), np.random.default_rng(5)
    hits = 0
    for trial in range(60):
        x = random.normal(size=30)
        y = 0.6 * x + 0.8 * random.normal(size=30)
        low, high = kendall_interval(x.tolist(), y.tolist(), seed=trial)
        hits += low <= truth <= high
    assert hits >= 51


def test_the_chance_is_counted_over_all_orders():
    assert kendall_chance([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 0) == pytest.approx(1 / 120)
    # at least 9 of 10 pairs agree: the order itself and its four neighbours
    assert kendall_chance([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], 0) == pytest.approx(5 / 120)
    assert kendall_chance([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], 0) == 1.0


def test_the_chance_of_many_items_is_drawn():
    x = list(range(9))
    y = [0, 2, 1, 4, 3, 5, 8, 6, 7]
    exact = SCIPY(x, y, alternative="greater", method="exact").pvalue
    assert kendall_chance(x, y, 0) == pytest.approx(exact, abs=0.004)
    x, y = list(range(8)), [3, 0, 1, 2, 4, 7, 5, 6]
    exact = SCIPY(x, y, alternative="greater", method="exact").pvalue
    assert kendall_chance(x, y, 0) == pytest.approx(exact, abs=0.01)
