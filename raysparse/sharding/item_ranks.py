"""Where each target stands among all items of a sharded table, by score."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from raysparse.data.schema import ITEM_TABLE
from raysparse.sharding.tables import ShardedTables

_SCORES_AT_A_TIME = 2**24
"""Scores that are held at a time: 64 MiB, where a rank holds the whole table."""


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


def rank_targets(tables: ShardedTables, queries: Queries) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the targets' ranks `[P]` from 0, among all items and among each of the samples; all ranks together.

    The rank is the number of items with a higher score, and half of those with the same one, so that a model that
    scores all items alike gains nothing. NaN where the target's score is no finite number. Each process scores the
    rows that it holds, and the counts are added up: no scores travel, unless the table is cut by columns.
    """
    rows, _ = tables.shapes[ITEM_TABLE]
    size = max(1, _SCORES_AT_A_TIME // rows)
    counts = [_count(tables, queries, slice(start, start + size)) for start in range(0, len(queries.targets), size)]
    names = ("", *queries.samples)
    together = torch.cat(counts, dim=1) if counts else queries.encoded.new_zeros(len(names), 0)
    return together[0], dict(zip(queries.samples, together[1:], strict=True))


def _count(tables: ShardedTables, queries: Queries, part: slice) -> Tensor:
    """The ranks `[1 + samples, C]` of a part of the targets."""
    targets = queries.targets[part]
    blocks = _blocks(tables, queries.encoded[part])
    own = torch.zeros(len(targets), device=targets.device)
    for first_row, scores in blocks:
        picked, inside = _pick(scores, targets.unsqueeze(1), first_row)
        own += torch.where(inside, picked, 0.0).squeeze(1)
    _add_up(own)
    bounds = torch.tensor([part.start, part.start + len(targets)], device=targets.device)
    first, last = torch.searchsorted(queries.seen_by, bounds).tolist()
    seen, seen_by = queries.seen[first:last], queries.seen_by[first:last] - part.start
    counts = torch.zeros(1 + len(queries.samples), len(targets), device=targets.device)
    for first_row, scores in blocks:
        for number, sample in enumerate(queries.samples.values(), start=1):
            picked, inside = _pick(scores, sample[part], first_row)
            counts[number] += _standing(torch.where(inside & (sample[part] > 0), picked, -torch.inf), own)
        _leave_out(scores, seen, seen_by, first_row)
        counts[0] += _standing(scores, own)
    _add_up(counts)
    counts[0] -= 0.5  # the target, which scores the same as itself
    counts[:, ~own.isfinite()] = torch.nan
    return counts


def _blocks(tables: ShardedTables, encoded: Tensor) -> list[tuple[int, Tensor]]:
    """The scores `[C, R]` of the rows that this process counts, with the first row of each block."""
    shards = [shard for shard in tables.shards if shard.table == ITEM_TABLE]
    if len(tables.column_bounds[ITEM_TABLE]) == 2:
        return [(shard.first_row, encoded @ shard.weight.T) for shard in shards]
    scores = torch.zeros(len(encoded), tables.shapes[ITEM_TABLE][0], device=encoded.device)
    for shard in shards:
        columns = slice(shard.first_column, shard.first_column + shard.weight.shape[1])
        scores += encoded[:, columns] @ shard.weight.T
    _add_up(scores)
    return [(0, scores)] if dist.get_rank() == 0 else []


def _pick(scores: Tensor, ids: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
    """Return the scores of items `[C, K]`, and whether they lie in the block."""
    places = ids - first_row
    inside = (places >= 0) & (places < scores.shape[1])
    return scores.gather(1, places.clamp(0, scores.shape[1] - 1)), inside


def _leave_out(scores: Tensor, seen: Tensor, seen_by: Tensor, first_row: int) -> None:
    places = seen - first_row
    inside = (places >= 0) & (places < scores.shape[1])
    scores[seen_by[inside], places[inside]] = -torch.inf
    if first_row == 0:
        scores[:, 0] = -torch.inf  # no item


def _standing(scores: Tensor, own: Tensor) -> Tensor:
    own = own.unsqueeze(1)
    return (scores > own).sum(1) + 0.5 * (scores == own).sum(1)


def _add_up(values: Tensor) -> None:
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
