from raysparse.search.finalists import pick_finalists, smallest_scored
from raysparse.search.journal import Entry


def entries(*points: tuple[float, float] | None) -> list[Entry]:
    return [
        Entry(number=number, generation=0, key=str(number), choice={}, seconds=1.0, error="died")
        if point is None
        else Entry(
            number=number,
            generation=0,
            key=str(number),
            choice={},
            seconds=1.0,
            objectives={"loss": point[0], "macs": point[1]},
        )
        for number, point in enumerate(points)
    ]


ALL = entries((0.5, 90), (0.4, 100), None, (0.4, 80), (0.7, 10), (0.6, 50))


def numbers(found: list[Entry]) -> list[int]:
    return [entry.number for entry in found]


def test_the_best_by_score_come_first_and_equal_ones_by_number():
    assert numbers(pick_finalists(ALL, "loss", "score", 3)) == [1, 3, 0]
    assert numbers(pick_finalists(ALL, "loss", "score", 9)) == [1, 3, 0, 5, 4]


def test_the_front_is_filled_up_from_behind_it():
    assert numbers(pick_finalists(ALL, "loss", "front", 3)) == [3, 5, 4]
    assert numbers(pick_finalists(ALL, "loss", "front", 2)) == [3, 4]
    assert numbers(pick_finalists(ALL, "loss", "front", 4)) == [3, 5, 4, 1]


def test_of_budgets_each_has_its_best_once():
    assert numbers(pick_finalists(ALL, "loss", "budgets", 9, (10, 60, 95, 1000))) == [4, 5, 3, 1]
    assert numbers(pick_finalists(ALL, "loss", "budgets", 9, (5, 85, 95))) == [3]


def test_the_smallest_scored_one_is_told_by_its_multiply_adds():
    assert smallest_scored(ALL) == 10
    assert smallest_scored(entries(None)) is None
