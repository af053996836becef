"""Draws items: negatives of a step from (seed, step), and what a target is ranked among from its own row.

Where a row is cut is drawn from all three.
"""

import math
import zlib
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.schema import HISTORY, TARGETS

Distribution = Literal["uniform", "popular"]

_TIMES_AS_MANY = (2, 8, 64)
"""Draws for each unseen item that is wanted, in one try after the other: twice as many are too few where the popular
items have been seen, for 2 % of MovieLens 1M's users."""
_DRAWS_AT_A_TIME = 2**22
"""Some 200 MB."""


class ItemDraws:
    """Draws from items 1 to M, evenly or by how often they occur. Every rank draws the same."""

    def __init__(self, num_items: int, counts: NDArray[np.float64] | None, seed: int) -> None:
        """`counts` `[M]` are needed for `popular` alone."""
        self.num_items = num_items
        self._seed = seed
        self._log_shares = self._cumulated = None
        if counts is not None:
            shares = torch.from_numpy(counts / counts.sum())
            self._log_shares = shares.clamp(min=1e-15).log()
            self._cumulated = torch.from_numpy(np.cumsum(counts) / counts.sum())

    def draw(self, distribution: Distribution, count: int, *place: int) -> Tensor:
        """Return `[count]` items, drawn from the seed and `place`, such as the number of steps; with repeats."""
        generator = torch.Generator().manual_seed(zlib.crc32(repr((self._seed, *place)).encode()))
        return self._items_at(distribution, torch.rand(count, dtype=torch.float64, generator=generator))

    def shares(self, ids: KeyedJaggedTensor, *place: int) -> Tensor:
        """Return numbers `[B]` from 0 to 1 without it, drawn for each row from its items, the seed and `place`.

        They are float64, and do not depend on which rank has the row. Rows of the same items in another order have the
        same.
        """
        lengths = [ids[name].lengths().cpu() for name in (HISTORY, TARGETS)]
        sums = torch.zeros(len(lengths[0]), dtype=torch.int64)
        for name, of_name in zip((HISTORY, TARGETS), lengths, strict=True):
            rows = torch.repeat_interleave(torch.arange(len(of_name)), of_name)
            sums.index_add_(0, rows, ids[name].values().cpu().long())
        keys = np.full(len(sums), zlib.crc32(repr((self._seed, "shares", *place)).encode()), np.uint64)
        for part in (sums, lengths[0] + lengths[1]):
            keys = _mix(keys ^ part.numpy().astype(np.uint64))
        return torch.from_numpy(_uniform(keys))

    def log_expected(self, distribution: Distribution, items: Tensor, count: int) -> Tensor:
        """Return the natural log of how often each item is expected among `count` draws, float32."""
        if distribution == "uniform":
            return torch.full(items.shape, math.log(count / self.num_items), device=items.device)
        assert self._log_shares is not None
        self._log_shares = self._log_shares.to(items.device)
        return (self._log_shares[items - 1] + math.log(count)).float()

    def draw_unseen(
        self, distribution: Distribution, count: int, keys: Tensor, seen: Tensor, seen_by: Tensor
    ) -> Tensor:
        """Return `[P, count]` items per key `[P]` that it has not seen, 0 where 64 times as many draws did not suffice.

        The draws are a hash of the key, so they do not depend on the batch or the number of ranks; an item may be drawn
        twice. `seen` `[S]` are the items that are left out, and `seen_by` `[S]` for which key, as a place among the
        keys.
        """
        keys, width = keys.cpu(), self.num_items + 1
        taken = torch.sort(seen_by.cpu() * width + seen.cpu()).values
        chosen = torch.zeros(len(keys), count, dtype=torch.int64)
        short = torch.arange(len(keys))
        for num_draws in (times * count for times in _TIMES_AS_MANY):
            for some in short.split(max(1, _DRAWS_AT_A_TIME // num_draws)):
                chosen[some] = self._first_unseen(distribution, count, num_draws, keys[some], some * width, taken)
            short = short[chosen[short, -1] == 0]
        return chosen

    def _first_unseen(
        self, distribution: Distribution, count: int, num_draws: int, keys: Tensor, first_codes: Tensor, taken: Tensor
    ) -> Tensor:
        """The first `[K, count]` of the draws whose codes, a key's first one and the item's row, are not taken."""
        numbers = keys.numpy().view(np.uint64)[:, None] + np.arange(1, num_draws + 1, dtype=np.uint64)
        items = self._items_at(distribution, torch.from_numpy(_uniform(_mix(numbers))))
        codes = first_codes.unsqueeze(1) + items
        places = torch.searchsorted(taken, codes).clamp(max=max(len(taken) - 1, 0))
        unseen = taken[places] != codes if len(taken) else torch.ones_like(codes, dtype=torch.bool)
        first = unseen & (unseen.cumsum(1) <= count)
        chosen = torch.zeros(len(keys), count, dtype=torch.int64)
        rows, columns = first.nonzero(as_tuple=True)
        chosen[rows, first.cumsum(1)[rows, columns] - 1] = items[rows, columns]
        return chosen

    def _items_at(self, distribution: Distribution, uniform: Tensor) -> Tensor:
        if distribution == "uniform":
            return (uniform * self.num_items).long() + 1
        assert self._cumulated is not None
        return torch.searchsorted(self._cumulated, uniform, right=True).clamp(max=self.num_items - 1) + 1


def history_keys(targets: Tensor, before: Tensor, of: Tensor) -> Tensor:
    """Return a key `[P]` int64 of each target: made of it, the sum of the items before it, and how many they are.

    `before` `[S]` are the items before the targets, `of` `[S]` says before which one.
    """
    sums = torch.zeros_like(targets).index_add_(0, of, before)
    key = np.zeros(len(targets), np.uint64)
    for part in (targets, sums, torch.bincount(of, minlength=len(targets))):
        key = _mix(key ^ part.cpu().numpy().astype(np.uint64))
    return torch.from_numpy(key.view(np.int64))


def _uniform(mixed: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64's finalizer (Steele, Lea and Flood 2014), on a multiple of its golden constant."""
    with np.errstate(over="ignore"):
        mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
