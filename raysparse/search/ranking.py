"""How well one score ranks what another one ranks: Kendall's tau, and what it is worth. Pure."""

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000
"""Draws behind an interval, and behind a chance where there are too many orders to list."""
MOST_LISTED = 6
"""Items of which all orders are listed."""

_LEVEL = 0.95

Signs = NDArray[np.int8]


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Kendall's tau-b: 1 where both rank alike, -1 where one reverses the other.

    Pairs that agree less pairs that disagree, over the root of the pairs that x tells apart times those that y does
    (Kendall 1945, The treatment of ties in ranking problems). NaN where one of them tells no pair apart.
    """
    return _tau(*_signs_of_both(x, y))


def kendall_interval(x: Sequence[float], y: Sequence[float], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of `kendall_tau`: percentiles over items drawn with replacement (Efron 1979).

    Draws that one of the scores does not tell apart are left out; NaN where all are. Few items make it too narrow, and
    items that are ranked alike give it no width: see `kendall_chance`.
    """
    of_x, of_y = _signs_of_both(x, y)
    random = np.random.default_rng(seed)
    draws = [random.integers(len(x), size=len(x)) for _ in range(NUM_DRAWS if len(x) else 0)]
    taus = np.array([_tau(of_x[np.ix_(draw, draw)], of_y[np.ix_(draw, draw)]) for draw in draws])
    known = taus[np.isfinite(taus)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return float(low), float(high)


def kendall_chance(x: Sequence[float], y: Sequence[float], seed: int) -> float:
    """Return the chance that items in random order rank as well as they do, or better: a one-sided permutation test.

    Exact for up to `MOST_LISTED` items. NaN where tau is.
    """
    of_x, of_y = _signs_of_both(x, y)
    tau = _tau(of_x, of_y)
    if math.isnan(tau):
        return math.nan
    taus = [_tau(of_x, of_y[np.ix_(order, order)]) for order in _orders(len(x), seed)]
    # the order as it is counts as one of those drawn, so that no chance is 0
    hits = sum(other >= tau - 1e-9 for other in taus) + (len(x) > MOST_LISTED)
    return hits / (len(taus) + (len(x) > MOST_LISTED))


def _orders(size: int, seed: int) -> Iterator[Sequence[int]]:
    if size <= MOST_LISTED:
        yield from permutations(range(size))
        return
    random = np.random.default_rng(seed)
    for _ in range(NUM_DRAWS):
        yield random.permutation(size).tolist()


def _signs_of_both(x: Sequence[float], y: Sequence[float]) -> tuple[Signs, Signs]:
    """Sign of the difference of each pair, `[n, n]`."""
    if len(x) != len(y):
        raise ValueError(f"two scores for each item; found {len(x)} and {len(y)}")
    points = [np.asarray(values, dtype=np.float64) for values in (x, y)]
    of_x, of_y = (np.sign(of_one[:, None] - of_one[None, :]).astype(np.int8) for of_one in points)
    return of_x, of_y


def _tau(of_x: Signs, of_y: Signs) -> float:
    told_apart = int(np.abs(of_x).sum(dtype=np.int64)) * int(np.abs(of_y).sum(dtype=np.int64))
    return float((of_x * of_y).sum(dtype=np.int64)) / math.sqrt(told_apart) if told_apart else math.nan
