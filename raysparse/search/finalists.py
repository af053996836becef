"""Which choices of a search are trained alone. Pure."""

from collections.abc import Sequence
from typing import Literal

from raysparse.search.journal import Entry
from raysparse.search.pareto import front

RankBy = Literal["score", "front", "budgets"]


def pick_finalists(
    entries: Sequence[Entry], objective: str, rank_by: RankBy, count: int, budgets: Sequence[int] = ()
) -> list[Entry]:
    """Return the best scored choices: by score, spread evenly along the front of score and MACs, or one per budget.

    Equal scores go by the number of the trial. Fewer where there are not so many; of budgets, each choice once.
    """

    def loss(entry: Entry) -> tuple[float, int]:
        return _objective(entry, objective), entry.number

    scored = sorted((entry for entry in entries if entry.objectives is not None), key=loss)
    if rank_by == "score":
        return scored[:count]
    if rank_by == "budgets":
        best_of = (next((entry for entry in scored if _objective(entry, "macs") <= most), None) for most in budgets)
        return list({entry.number: entry for entry in best_of if entry is not None}.values())
    return _along_front(scored, objective, count)


def smallest_scored(entries: Sequence[Entry]) -> float | None:
    """Return the multiply-adds of the smallest scored choice; None where none has a score."""
    return min((_objective(entry, "macs") for entry in entries if entry.objectives is not None), default=None)


def _along_front(scored: list[Entry], objective: str, count: int) -> list[Entry]:
    points = [(_objective(entry, objective), _objective(entry, "macs")) for entry in scored]
    best = [scored[index] for index in front(points)]
    if len(best) <= count:
        # What is left comes from behind the front, so that as many are trained as were asked for.
        return [*best, *(entry for entry in scored if entry not in best)][:count]
    if count == 1:
        return best[:1]
    return [best[round(step * (len(best) - 1) / (count - 1))] for step in range(count)]


def _objective(entry: Entry, name: str) -> float:
    assert entry.objectives is not None
    return entry.objectives[name]
