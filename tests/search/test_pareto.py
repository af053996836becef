import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysparse.search.pareto import best_so_far, crowding, dominates, front, hypervolume, sort_fronts


def points_of(num_coordinates: int, largest: int = 5) -> st.SearchStrategy[list[tuple[int, ...]]]:
    return st.lists(st.tuples(*[st.integers(0, largest)] * num_coordinates), max_size=12)


some_points = st.integers(1, 4).flatmap(points_of)


def count_cells(points: Sequence[Sequence[int]], reference: Sequence[int]) -> int:
    """Unit cells below the reference whose lower corner some point reaches: the volume by its definition."""
    cells = itertools.product(*(range(bound) for bound in reference))
    return sum(any(all(a <= b for a, b in zip(point, cell, strict=True)) for point in points) for cell in cells)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((1, 2), (1, 3), True), ((1, 3), (1, 2), False), ((1, 2), (2, 1), False), ((1, 2), [1, 2], False)],
)
def test_one_point_dominates_another(first: Sequence[float], second: Sequence[float], expected: bool):
    assert dominates(first, second) is expected


@given(some_points)
def test_a_front_is_what_nothing_dominates(points: list[tuple[int, ...]]):
    expected = [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    assert front(points) == expected


@given(some_points)
def test_each_front_is_dominated_by_the_one_before_alone(points: list[tuple[int, ...]]):
    fronts = sort_fronts(points)
    assert sorted(index for indices in fronts for index in indices) == list(range(len(points)))
    for level, indices in enumerate(fronts):
        for index in indices:
            assert not any(dominates(points[other], points[index]) for other in indices)
            if level:
                assert any(dominates(points[other], points[index]) for other in fronts[level - 1])


def test_fronts_of_known_points():
    assert sort_fronts([(2, 2), (0, 3), (3, 3), (3, 0), (1, 1), (2, 2)]) == [[1, 3, 4], [0, 5], [2]]


def test_crowding_of_known_points():
    # Axis 0: (4 - 0) / 10 and (10 - 1) / 10; axis 1: (8 - 2) / 8 and (5 - 0) / 8.
    assert crowding([(10, 0), (0, 8), (4, 2), (1, 5)]) == [math.inf, math.inf, 0.9 + 0.625, 0.4 + 0.75]


def test_a_coordinate_in_which_all_agree_does_not_count():
    assert crowding([(1, 7), (2, 7), (4, 7)]) == [math.inf, 1.0, math.inf]
    assert crowding([(1, 7), (1, 7)]) == [0.0, 0.0]
    assert crowding([]) == []


@given(st.integers(1, 4).flatmap(lambda n: st.tuples(points_of(n), st.tuples(*[st.integers(1, 4)] * n))))
def test_hypervolume_counts_the_cells_below(case: tuple[list[tuple[int, ...]], tuple[int, ...]]):
    points, reference = case
    assert hypervolume(points, reference) == count_cells(points, reference)


def test_hypervolume_of_a_known_front():
    assert hypervolume([(1, 3), (2, 2), (3, 1), (5, 5)], (4, 4)) == 6
    assert hypervolume([(0.5, 0.5, 0.5)], (1, 1, 1)) == 0.125
    assert hypervolume([(4, 0)], (4, 4)) == 0


def test_the_best_score_so_far_passes_over_failed_trials():
    assert best_so_far([None, 3.0, 4.0, None, 2.0]) == [None, 3.0, 3.0, 3.0, 2.0]
