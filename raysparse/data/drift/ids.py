"""Ids of one feature: drawn by Zipf rank, spread over the rows of the table, replaced as days go by.

    random bits -> rank -> (rank, generation) -> row of the table -> code

A rank is a place in the order of popularity. The row that holds it is an affine permutation of the rank, so
that popular rows lie scattered. Each rank lives through generations: on every day a share `id_churn` of them,
told by a hash of the rank, moves on to the next, and a generation shifts the rank by 0.38 of the table before
the permutation. The row that comes up was in the far tail before, the row that goes falls back into it, and
without churn the map stays one permutation for ever. With churn a popular and a rare rank may meet on one row.

Everything is a closed form of (seed, feature, rank, day): no table of ids is held, whatever its size.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CODE_BITS = 7
NUM_CODES = 1 << CODE_BITS
"""Kinds of id that the teacher tells apart within a feature."""
HEAD_RANKS = 20
"""Rank at which the strength of an id has halved; rare ids say little, as nobody could learn what they say."""
_QUANTILE_BITS = 14
_GENERATION_SHIFT = 0.381966


class IdDistribution:
    """The ids of one feature; all methods work on arrays `[N]` and change none of their arguments."""

    def __init__(self, seed: int, feature: int, rows: int, zipf_exponent: float, churn: float) -> None:
        self._num_live = rows - 1
        self._churn = churn
        self._quantiles = _zipf_quantiles(self._num_live, zipf_exponent)
        keys = np.random.SeedSequence(seed, spawn_key=(feature,)).generate_state(4, np.uint64)
        self._generation_key, self._code_key = keys[0], keys[1]
        self._multiplier = _coprime(int(keys[2]) % self._num_live, self._num_live)
        self._offset = int(keys[3]) % self._num_live

    def ranks(self, bits: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Turn 64 random bits each into ranks, 0 the most popular."""
        bins = (bits >> np.uint64(64 - _QUANTILE_BITS)).view(np.int64)
        within = (bits & np.uint64((1 << (64 - _QUANTILE_BITS)) - 1)) * 2.0 ** (_QUANTILE_BITS - 64)
        low = self._quantiles.take(bins)
        within *= self._quantiles.take(bins + 1) - low
        within += low
        return np.minimum(within.astype(np.int64), self._num_live - 1)

    def ids(self, ranks: NDArray[np.int64], day_index: int) -> NDArray[np.int64]:
        """Return the rows, 1 to rows - 1, that hold these ranks on a day."""
        places = ranks
        if self._churn:
            age = hash_uniform(ranks.view(np.uint64), self._generation_key) + self._churn * day_index
            places = ranks + age.astype(np.int64) * int(_GENERATION_SHIFT * self._num_live)
            places %= self._num_live
        ids = places * self._multiplier
        ids += self._offset
        ids %= self._num_live
        ids += 1
        return ids

    def codes(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return what kind of id each is, 0 to NUM_CODES - 1: a hash of (seed, feature, id)."""
        return (_mix(ids.view(np.uint64), self._code_key) >> np.uint64(64 - CODE_BITS)).astype(np.intp)


def strengths(ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return how much an id of each rank says, from 1 for the most popular down to 0."""
    return np.float32(HEAD_RANKS**2) / (ranks * ranks + HEAD_RANKS**2).astype(np.float32)


def hash_uniform(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.float64]:
    """Hash values to numbers in [0, 1)."""
    return (_mix(values, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele, Lea and Flood 2014) of value + key."""
    mixed = values + key
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@lru_cache(maxsize=64)
def _zipf_quantiles(num_live: int, exponent: float) -> NDArray[np.float64]:
    """Return the quantiles of a bounded power law on [0, num_live) at steps of 1 / 2^14.

    Drawing interpolates between them: exact at the steps, flat in between. Beside being quicker than a power
    per draw, it keeps the rank from hanging on the last bit of a machine's power function.
    """
    quantile = np.linspace(0.0, 1.0, (1 << _QUANTILE_BITS) + 1)
    power = 1.0 - exponent
    if abs(power) < 1e-9:
        edges = np.exp(quantile * math.log(num_live + 1.0))
    else:
        edges = (1.0 + quantile * ((num_live + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.round((edges - 1.0) * 2.0**16) / 2.0**16


def _coprime(start: int, modulus: int) -> int:
    """Return the first number from `start` (at least 1) on that has no factor in common with `modulus`."""
    number = max(1, start)
    while math.gcd(number, modulus) != 1:
        number += 1
    return number
