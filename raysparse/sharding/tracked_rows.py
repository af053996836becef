"""Rows of sharded tables: how often each is looked up, how large its gradients are, and which are held at zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.errors import ConfigError
from raysparse.sharding.global_tensor import GlobalTensor, Piece
from raysparse.sharding.tables import ShardedTables, TableShard


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of a table that this rank keeps account of."""

    table: str
    first_row: int
    everywhere: bool
    """Whether every rank keeps account of the whole table: it is copied, or cut into columns."""
    shards: tuple[TableShard, ...]
    """Where the rows lie on this rank: several where columns are cut, none where other ranks have them all."""
    accesses: Tensor
    """`[rows]` int32: look-ups of training steps that `take_accesses` has not given yet."""
    pending: Tensor
    """`[rows]` int32: look-ups that only this rank knows of; elsewhere than `everywhere` the accesses themselves."""
    squares_seen: Tensor
    """`[rows]` float32: what the optimizer had added up when `take_squares` was called last."""
    kept: Tensor
    """`[rows]` bool: False where the row is held at zero."""


class TrackedRows:
    """Keeps account of the rows of tables, under any plan, and holds pruned ones at zero. Every rank.

    Squared gradients are what Adagrad has added up anyway, so that they cost nothing per step; accesses are counted
    where the kernels look rows up, and where rows are whole no rank learns of more than its own. 13 bytes per row.
    A pruned row goes on being looked up and Adagrad goes on adding up its gradients, taken at zero, which is how it can
    earn its place again; the weight that the kernels give it in a step is taken back by `hold_at_zero`.
    """

    def __init__(self, tables: ShardedTables, device: torch.device) -> None:
        """Raises ConfigError where the tables' optimizer does not add up squared gradients."""
        if tables.config.kind not in ("rowwise_adagrad", "adagrad"):
            raise ConfigError(
                f"optimizer.sparse.kind: found '{tables.config.kind}'; allowed with row_pruning, which measures "
                "gradients by what Adagrad adds up: 'rowwise_adagrad', 'adagrad'"
            )
        self.tables = tables
        self._device = device
        self.ranges = [row_range for table in tables.shapes for row_range in self._ranges_of(table)]
        self._touched: list[tuple[TableShard, RowRange, Tensor]] = []
        for kernel, shards in tables.kernels:
            self._watch(kernel, shards)
        self.save("accesses", [row_range.accesses for row_range in self.ranges])
        self.save("squares_seen", [row_range.squares_seen for row_range in self.ranges])
        self.save("kept", [row_range.kept for row_range in self.ranges])

    def _ranges_of(self, table: str) -> list[RowRange]:
        shards = tuple(shard for shard in self.tables.shards if shard.table == table)
        if table in self.tables.copied_tables or len(self.tables.column_bounds[table]) > 2:
            return [self._range(table, 0, self.tables.shapes[table][0], shards, everywhere=True)]
        return [
            self._range(table, shard.first_row, shard.weight.shape[0], (shard,), everywhere=False) for shard in shards
        ]

    def _range(
        self, table: str, first_row: int, rows: int, shards: tuple[TableShard, ...], *, everywhere: bool
    ) -> RowRange:
        accesses = torch.zeros(rows, dtype=torch.int32, device=self._device)
        return RowRange(
            table=table,
            first_row=first_row,
            everywhere=everywhere,
            shards=shards,
            accesses=accesses,
            pending=torch.zeros_like(accesses) if everywhere else accesses,
            squares_seen=torch.zeros(rows, device=self._device),
            kept=torch.ones(rows, dtype=torch.bool, device=self._device),
        )

    def _watch(self, kernel: nn.Module, shards: list[TableShard]) -> None:
        range_of = {id(shard): row_range for row_range in self.ranges for shard in row_range.shards}
        # TorchRec's kernels have a config; nn.Module does not say so.
        tables: list[Any] = kernel.config.embedding_tables  # type: ignore[reportAttributeAccessIssue]
        places = [
            (shard, range_of[id(shard)])
            for table, shard in zip(tables, shards, strict=True)
            for _ in table.feature_names
        ]

        def watch(module: nn.Module, inputs: tuple[KeyedJaggedTensor]) -> None:
            # Days are scored without gradients; their rows count when they are trained on.
            if not torch.is_grad_enabled():
                return
            (features,) = inputs
            parts = features.values().split(features.length_per_key())
            for (shard, row_range), ids in zip(places, parts, strict=True):
                self._touched.append((shard, row_range, ids))
                if shard.first_column == 0:
                    ones = torch.ones(len(ids), dtype=torch.int32, device=ids.device)
                    row_range.pending.index_add_(0, ids, ones)

        kernel.register_forward_pre_hook(watch)

    def save(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Have a tensor `[rows]` per range saved with the tables, and restored in place under any plan."""
        pairs = list(zip(self.ranges, tensors, strict=True))
        for table, (rows, _) in self.tables.shapes.items():
            mine = [(row_range, tensor) for row_range, tensor in pairs if row_range.table == table]
            pieces = tuple(Piece((row_range.first_row,), tensor) for row_range, tensor in mine)
            everywhere = any(row_range.everywhere for row_range, _ in mine)
            # A rank without rows of the table reads and writes none of it, whatever its type.
            dtype = mine[0][1].dtype if mine else torch.float32
            self.tables.extras[f"{table}/{name}"] = GlobalTensor((rows,), dtype, pieces, everywhere)

    @torch.no_grad()
    def hold_at_zero(self) -> None:
        """Set the pruned rows that the last step has moved to zero again; after each training step."""
        for shard, row_range, ids in self._touched:
            if shard.table in self.tables.copied_tables:
                # Other ranks' rows of the batch have moved this copy, too.
                shard.weight.masked_fill_(~row_range.kept.unsqueeze(1), 0.0)
            else:
                shard.weight.index_fill_(0, ids[~row_range.kept.index_select(0, ids)], 0.0)
        self._touched.clear()

    def agree(self) -> None:
        """Add up the accesses that each rank alone knows of; all ranks together, before saving."""
        shared = [row_range for row_range in self.ranges if row_range.everywhere]
        self._add_up([row_range.pending for row_range in shared])
        for row_range in shared:
            row_range.accesses.add_(row_range.pending)
            row_range.pending.zero_()

    def take_accesses(self) -> list[Tensor]:
        """Return per range the accesses `[rows]` since the last call; all ranks together."""
        self.agree()
        taken = [row_range.accesses.clone() for row_range in self.ranges]
        for row_range in self.ranges:
            row_range.accesses.zero_()
        return taken

    @torch.no_grad()
    def take_squares(self) -> list[Tensor]:
        """Return per range the sum of the squared norms of gradients `[rows]` since the last call; all together."""
        sums = [self._added_up(row_range) for row_range in self.ranges]
        self._add_up(
            [
                total
                for row_range, total in zip(self.ranges, sums, strict=True)
                if row_range.everywhere and row_range.table not in self.tables.copied_tables
            ]
        )
        growth: list[Tensor] = []
        for row_range, total in zip(self.ranges, sums, strict=True):
            growth.append((total - row_range.squares_seen).clamp_(min=0.0))
            row_range.squares_seen.copy_(total)
        return growth

    def _added_up(self, row_range: RowRange) -> Tensor:
        total = torch.zeros_like(row_range.squares_seen)
        for shard in row_range.shards:
            if "row_sum" in shard.states:
                # The mean over the shard's columns.
                total.add_(shard.states["row_sum"], alpha=shard.weight.shape[1])
            else:
                total.add_(shard.states["sum"].sum(1))
        return total

    @torch.no_grad()
    def keep(self, kept: Sequence[Tensor]) -> None:
        """Prune the rows that are not `kept` (bool `[rows]` per range), and let the others learn.

        A row that is pruned or comes back starts afresh: at zero, with a fresh optimizer.
        """
        for row_range, chosen in zip(self.ranges, kept, strict=True):
            changed = (chosen != row_range.kept).nonzero().squeeze(1)
            row_range.kept.copy_(chosen)
            row_range.squares_seen.index_fill_(0, changed, 0.0)
            for shard in row_range.shards:
                shard.weight.index_fill_(0, changed, 0.0)
                for state in shard.states.values():
                    state.index_fill_(0, changed, 0.0)

    def counted_here(self, row_range: RowRange) -> bool:
        """Whether this rank speaks for the range where all ranks' rows are counted."""
        return not row_range.everywhere or dist.get_rank() == 0

    def add(self, counts: Tensor) -> Tensor:
        """Add a tensor of integers on the CPU up over the ranks; all ranks together."""
        counts = counts.to(self._device)
        dist.all_reduce(counts)
        return counts.cpu()

    def _add_up(self, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat(tensors)
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([len(tensor) for tensor in tensors]), strict=True):
            tensor.copy_(part)
