"""Where each target stands among all items of a sharded table, by score."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from raysparse.data.schema import ITEM_TABLE
from raysparse.models.precision import highest_precision
from raysparse.sharding.held_table import HeldTable
from raysparse.sharding.tables import ShardedTables, TableShard

RankedTables = ShardedTables | HeldTable
"""Where the rows of items are: over all ranks, or whole in this process."""

_TARGETS_AT_A_TIME = 1024
_ROWS_AT_A_TIME = 16_384
"""A block of scores takes 64 MiB; blocks of many targets, since a table is larger than the cache."""
_ROUNDING = 1e-6
"""Scores are taken for the same within this share of the product of the vectors' lengths."""


@dataclass(frozen=True)
class Queries:
    """What is ranked: the targets of all ranks together, the same on each of them. P targets."""

    encoded: Tensor
    """`[P, D]` float32: what came before the target, as the model encodes it."""
    targets: Tensor
    """`[P]` int64."""
    seen: Tensor
    """`[S]` int64: items that are left out of a target's ranking; never the target itself."""
    seen_by: Tensor
    """`[S]` int64, ascending: the target out of whose ranking each is left."""
    samples: dict[str, Tensor]
    """`[P, K]` int64 by name: items that the target is ranked among besides; 0 is none."""


def rank_targets(tables: RankedTables, queries: Queries) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the targets' ranks `[P]` from 0, among all items and among each of the samples; all ranks together.

    The rank is the number of items with a higher score, and half of those with the same one, so that a model that
    scores all items alike gains nothing. NaN where the target's score is no finite number. Each process scores the
    rows that it holds, and the counts are added up: no scores travel, unless the table is cut by columns. Products have
    all their digits whatever `scaling.matmul_precision` is: with fewer, equal scores would be told apart.
    """
    starts = range(0, len(queries.targets), _TARGETS_AT_A_TIME)
    with highest_precision():
        counts = [_count(tables, queries, slice(start, start + _TARGETS_AT_A_TIME)) for start in starts]
    together = torch.cat(counts, dim=1) if counts else queries.encoded.new_zeros(1 + len(queries.samples), 0)
    return together[0], dict(zip(queries.samples, together[1:], strict=True))


def _count(tables: RankedTables, queries: Queries, part: slice) -> Tensor:
    """The ranks `[1 + samples, C]` of a part of the targets."""
    encoded, targets = queries.encoded[part], queries.targets[part]
    own, reach = _own_scores(tables, encoded, targets)
    left_out, left_out_of = _left_out(queries, part)
    counts = torch.zeros(1 + len(queries.samples), len(targets), device=targets.device)
    for first_row, scores in _blocks(tables, encoded):
        for number, sample in enumerate(queries.samples.values(), start=1):
            counts[number] += _standing(_pick(scores, sample[part], first_row), own, reach)
        bounds = torch.tensor([first_row, first_row + scores.shape[1]], device=left_out.device)
        first, last = torch.searchsorted(left_out, bounds).tolist()
        scores[left_out_of[first:last], left_out[first:last] - first_row] = -torch.inf
        counts[0] += _standing(scores, own, reach)
    _add_up(counts)
    counts[:, ~own.isfinite()] = torch.nan
    return counts


def _own_scores(tables: RankedTables, encoded: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The targets' scores `[C]`, and how far from them `[C]` a score is the same but for rounding."""
    parts = torch.zeros(2, len(targets), device=targets.device)
    for shard in _shards(tables):
        places = targets - shard.first_row
        inside = (places >= 0) & (places < len(shard.weight))
        rows = shard.weight[places[inside]]
        columns = slice(shard.first_column, shard.first_column + rows.shape[1])
        parts[0, inside] += (encoded[inside, columns] * rows).sum(1)
        parts[1, inside] += rows.square().sum(1)
    _add_up(parts)
    return parts[0], _ROUNDING * parts[1].sqrt() * encoded.norm(dim=1)


def _left_out(queries: Queries, part: slice) -> tuple[Tensor, Tensor]:
    """What does not count in the rankings of a part: what was seen, the target, and row 0; ascending by item."""
    targets = queries.targets[part]
    bounds = torch.tensor([part.start, part.start + len(targets)], device=targets.device)
    first, last = torch.searchsorted(queries.seen_by, bounds).tolist()
    of = torch.arange(len(targets), device=targets.device)
    items = torch.cat([queries.seen[first:last], targets, torch.zeros_like(targets)])
    rankings = torch.cat([queries.seen_by[first:last] - part.start, of, of])
    order = items.argsort()
    return items[order], rankings[order]


def _blocks(tables: RankedTables, encoded: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the scores `[C, R]` of the rows that this process counts, with the first row of each block."""
    shards = _shards(tables)
    if len(tables.column_bounds[ITEM_TABLE]) == 2:
        for shard in shards:
            for start in range(0, len(shard.weight), _ROWS_AT_A_TIME):
                yield shard.first_row + start, encoded @ shard.weight[start : start + _ROWS_AT_A_TIME].T
        return
    num_rows = tables.shapes[ITEM_TABLE][0]
    for start in range(0, num_rows, _ROWS_AT_A_TIME):
        scores = torch.zeros(len(encoded), min(_ROWS_AT_A_TIME, num_rows - start), device=encoded.device)
        for shard in shards:
            columns = slice(shard.first_column, shard.first_column + shard.weight.shape[1])
            scores += encoded[:, columns] @ shard.weight[start : start + _ROWS_AT_A_TIME].T
        _add_up(scores)
        if dist.get_rank() == 0:
            yield start, scores


def _shards(tables: RankedTables) -> list[TableShard]:
    return [shard for shard in tables.shards if shard.table == ITEM_TABLE]


def _pick(scores: Tensor, ids: Tensor, first_row: int) -> Tensor:
    """The scores of items `[C, K]`; minus infinity for those outside the block, and for 0, which is none."""
    places = ids - first_row
    inside = (places >= 0) & (places < scores.shape[1]) & (ids > 0)
    return torch.where(inside, scores.gather(1, places.clamp(0, scores.shape[1] - 1)), -torch.inf)


def _standing(scores: Tensor, own: Tensor, reach: Tensor) -> Tensor:
    """How many scores are higher, and half of how many are the same."""
    higher = (scores > (own + reach).unsqueeze(1)).sum(1)
    not_lower = (scores >= (own - reach).unsqueeze(1)).sum(1)
    return 0.5 * (higher + not_lower)


def _add_up(values: Tensor) -> None:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
