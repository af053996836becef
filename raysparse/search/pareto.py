"""Fronts, crowding and hypervolume of points of which every coordinate is better when smaller."""

import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(first: Point, second: Point) -> bool:
    """Whether `first` is nowhere worse and somewhere better."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, in their order; equal points are all kept."""
    chosen: list[int] = []
    # In lexicographic order a point can be dominated by earlier ones alone, and then by one of their front.
    for index in sorted(range(len(points)), key=lambda index: tuple(points[index])):
        if not any(dominates(points[other], points[index]) for other in chosen):
            chosen.append(index)
    return sorted(chosen)


def sort_fronts(points: Sequence[Point]) -> list[list[int]]:
    """Indices of the points by front: the best, the best without those, and so on (Deb et al. 2002, III-A)."""
    fronts: list[list[int]] = []
    left = list(range(len(points)))
    while left:
        best = front([points[index] for index in left])
        fronts.append([left[position] for position in best])
        taken = set(best)
        left = [index for position, index in enumerate(left) if position not in taken]
    return fronts


def crowding(points: Sequence[Point]) -> list[float]:
    """Crowding distance of each point of one front (Deb et al. 2002, III-B): larger where it is lonelier.

    The ends of each coordinate get infinity. A coordinate in which all points agree says nothing and is left out.
    """
    distances = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda index: points[index][axis])
        low, high = points[order[0]][axis], points[order[-1]][axis]
        if low == high:
            continue
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, index, after in zip(order, order[1:], order[2:], strict=False):
            distances[index] += (points[after][axis] - points[before][axis]) / (high - low)
    return distances


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume that is dominated by the points and not worse than `reference`: exact, in any number of dimensions.

    Points beyond the reference add nothing. Time grows as (number of points on the front) ** (dimensions - 1).
    """
    inside = [tuple(point) for point in points if all(a < b for a, b in zip(point, reference, strict=True))]
    return _volume(inside, tuple(reference))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(points)[0]
    best = sorted({points[index] for index in front(points)}, key=lambda point: point[-1])
    if len(reference) == 2:
        # The second coordinate rises, so the first one falls: each point adds a rectangle beside the one before.
        rights = [reference[0], *(point[0] for point in best)]
        return math.fsum(
            (right - point[0]) * (reference[1] - point[1]) for right, point in zip(rights, best, strict=False)
        )
    ends = [*(point[-1] for point in best[1:]), reference[-1]]
    return math.fsum(
        (end - point[-1]) * _volume([other[:-1] for other in best[: count + 1]], reference[:-1])
        for count, (point, end) in enumerate(zip(best, ends, strict=True))
        if end > point[-1]
    )


def best_so_far(values: Sequence[float | None]) -> list[float | None]:
    """Smallest value up to each place; None is a failed trial, and what comes before the first score."""
    curve: list[float | None] = []
    best: float | None = None
    for value in values:
        if value is not None and (best is None or value < best):
            best = value
        curve.append(best)
    return curve
