"""Which choices of a search are trained alone. Pure."""

from collections.abc import Sequence
from typing import Literal

from raysparse.search.journal import Entry
from raysparse.search.pareto import front


def pick_finalists(entries: Sequence[Entry], count: int, rank_by: Literal["log_loss", "front"]) -> list[Entry]:
    """Return the best scored choices: by log loss, or spread evenly along the front of log loss and multiply-adds.

    Equal scores go by the number of the trial. Fewer where there are not so many.
    """
    scored = sorted((entry for entry in entries if entry.objectives is not None), key=_by_loss)
    if rank_by == "log_loss":
        return scored[:count]
    points = [(_objective(entry, "log_loss"), _objective(entry, "macs")) for entry in scored]
    best = [scored[index] for index in front(points)]
    if len(best) <= count:
        # What is left comes from behind the front, so that as many are trained as were asked for.
        return [*best, *(entry for entry in scored if entry not in best)][:count]
    if count == 1:
        return best[:1]
    return [best[round(step * (len(best) - 1) / (count - 1))] for step in range(count)]


def _by_loss(entry: Entry) -> tuple[float, int]:
    return _objective(entry, "log_loss"), entry.number


def _objective(entry: Entry, name: str) -> float:
    assert entry.objectives is not None
    return entry.objectives[name]
