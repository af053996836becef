"""Which rows of the tables are worth their bytes, and what a table without the others looks like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_DIGIT = 8
_DIGITS = 1 << _DIGIT
_POSITION_BITS = 31

Add = Callable[[Tensor], Tensor]
"""Adds a tensor of integers up over all processes; all of them together."""


@dataclass(frozen=True)
class RowUtility:
    """What rows are worth: how often they are looked up, times the size of their gradient when they are.

    With a decayed number of accesses a and a decayed sum of squared gradient norms s, the root mean square norm per
    access is sqrt(s / a), so that the product is sqrt(a s).
    """

    accesses: Tensor
    """`[rows]` float32, decayed."""
    squares: Tensor
    """`[rows]` float32, decayed sum of the squared norms of the rows' gradients."""

    @classmethod
    def zeros(cls, num_rows: int, device: torch.device) -> "RowUtility":
        """Rows that no one has looked up."""
        return cls(torch.zeros(num_rows, device=device), torch.zeros(num_rows, device=device))

    def update(self, accesses: Tensor, squares: Tensor, decay: float) -> None:
        """Add a day, `[rows]` each, in place; what was there before counts `decay` times."""
        self.accesses.mul_(decay).add_(accesses)
        self.squares.mul_(decay).add_(squares)

    def value(self) -> Tensor:
        """The utility `[rows]`."""
        return (self.accesses * self.squares).sqrt_()


@dataclass(frozen=True)
class RowPart:
    """Consecutive rows of a table among which is chosen."""

    table: int
    """Number of the table."""
    first: int
    """Position of the first row among the rows of all tables."""
    utility: Tensor
    """`[rows]`, not negative."""
    kept: Tensor
    """`[rows]` bool: the last choice."""
    bytes_per_row: int
    counted: bool = True
    """False where another process, or another part, counts the same rows."""


@dataclass(frozen=True)
class RowBudget:
    """What the kept rows may take."""

    num_bytes: int
    floor_rows: int = 1
    """Rows that each table keeps in any case, even beyond the budget."""
    hysteresis: float = 0.0
    """How much more utility a pruned row needs to take a kept one's place, as a share."""


def choose_rows(
    parts: Sequence[RowPart], num_tables: int, budget: RowBudget, add: Add = lambda counts: counts
) -> list[Tensor]:
    """Keep the rows of largest utility per byte until the budget is spent; bool `[rows]` per part.

    All processes together, each with its parts: the choice does not depend on how rows are cut into parts. Among
    equals the rows that were kept go first, then those of lower position. Rows of no utility fill up a budget that
    is left, so that an id that is new today has a row to learn in.
    """
    keys = [_keys(part, budget.hysteresis) for part in parts]
    counted = [int(part.counted) for part in parts]
    floors = _thresholds(keys, [part.table for part in parts], counted, [budget.floor_rows] * num_tables, add)
    in_floor = [key >= floors[part.table] for key, part in zip(keys, parts, strict=True)]
    sizes = [part.bytes_per_row * part.counted for part in parts]
    spent = sum(size * int(rows.sum()) for size, rows in zip(sizes, in_floor, strict=True))
    left = max(0, budget.num_bytes - int(add(torch.tensor([spent])).item()))
    others = [key[~rows] for key, rows in zip(keys, in_floor, strict=True)]
    (threshold,) = _thresholds(others, [0] * len(parts), sizes, [left], add)
    return [rows | (key >= threshold) for key, rows in zip(keys, in_floor, strict=True)]


def _keys(part: RowPart, hysteresis: float) -> Tensor:
    """An int64 per row, no two alike, in the order in which rows are kept: larger first.

    From the top: the 31 bits of the utility per byte (floats that are not negative have the order of their bits), the
    bit of the last choice, and the position, counted down.
    """
    density = torch.where(part.kept, part.utility * (1.0 + hysteresis), part.utility).float() / part.bytes_per_row
    positions = torch.arange(part.first, part.first + len(density), device=density.device)
    assert part.first + len(density) <= 1 << _POSITION_BITS
    bits = density.view(torch.int32).long() << (_POSITION_BITS + 1)
    return bits | (part.kept.long() << _POSITION_BITS) | ((1 << _POSITION_BITS) - 1 - positions)


def _thresholds(
    keys: Sequence[Tensor], groups: Sequence[int], weights: Sequence[int], limits: Sequence[int], add: Add
) -> list[int]:
    """Per group the smallest key from which on the weights of the keys add up to no more than the limit.

    A radix search from the top: eight histograms of 256 counts per group are all that processes exchange.
    """
    left = torch.tensor(limits)
    found = torch.zeros(len(limits), dtype=torch.int64)
    everything = torch.zeros(len(limits), dtype=torch.bool)
    candidates = [key if weight else key[:0] for key, weight in zip(keys, weights, strict=True)]
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        digits = [(key >> shift) & (_DIGITS - 1) for key in candidates]
        counts = torch.zeros(len(limits), _DIGITS, dtype=torch.int64)
        for digit, group, weight in zip(digits, groups, weights, strict=True):
            counts[group] += torch.bincount(digit, minlength=_DIGITS).cpu() * weight
        from_here = add(counts).flip(1).cumsum(1).flip(1)
        # The weight of all digits from here on shrinks: the last digit with which it is too much is gone into.
        crossed = (from_here > left.unsqueeze(1)).sum(1) - 1
        everything |= crossed < 0
        above = torch.cat([from_here, torch.zeros(len(limits), 1, dtype=torch.int64)], dim=1)
        left -= above.gather(1, (crossed + 1).unsqueeze(1)).squeeze(1)
        found = (found << _DIGIT) | crossed.clamp(min=0)
        chosen = crossed.tolist()
        candidates = [key[digit == chosen[group]] for key, digit, group in zip(candidates, digits, groups, strict=True)]
    # The key that was found is the first that no longer fits.
    return torch.where(everything, torch.zeros_like(found), found + 1).tolist()


def index_remapping(kept: Tensor) -> Tensor:
    """FBGEMM's remapping array, int32 `[rows]`: the row in the compact table, or -1 where it was pruned."""
    return torch.where(kept, kept.cumsum(0) - 1, -1).int()


def compact(weight: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """A table `[rows, dim]` without its pruned rows `[kept rows, dim]`, and the remapping array of its ids.

    Under sum pooling a look-up in it is that in the table with its pruned rows at zero: an id that maps to -1 adds
    nothing.
    """
    return weight[kept], index_remapping(kept)


def array_bytes(num_rows: int) -> int:
    """Bytes of a remapping array: 4 per row of the table. It can be updated while it serves."""
    return 4 * num_rows


def hash_bytes(num_kept: int, load_factor: float = 0.5) -> int:
    """Bytes of FBGEMM's remapping hash table: 8 per slot, about 16 per kept row; less than the array below a quarter.

    Source: IntNBitTableBatchedEmbeddingBagsCodegen.set_index_remappings of fbgemm_gpu 1.8 (slots are a multiple of 32).
    """
    return 8 * (-(-int(num_kept / load_factor) // 32) * 32)
