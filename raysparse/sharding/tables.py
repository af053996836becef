"""Sharded tables as data: which box of which table this rank holds, its weights and optimizer states.

The view does not depend on the plan: a checkpoint made of it loads into any other plan and number of ranks.
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from raysparse.sharding.global_tensor import GlobalTensor, Piece
from raysparse.sharding.optimizer import STATE_NAMES, SparseOptimizerConfig, UnfusedTableOptimizer

_ROWS_PER_DRAW = 16_384

ReadTensors = Callable[[dict[str, GlobalTensor]], None]
"""Fills the pieces of named global tensors from a checkpoint; called by every rank together."""


@dataclass(frozen=True)
class TableShard:
    """A box of a table on this rank. Tensors are views of the kernels' memory."""

    table: str
    first_row: int
    first_column: int
    weight: Tensor
    """`[rows, columns]`"""
    states: dict[str, Tensor]
    """Optimizer states by name: `[rows, columns]`, or `[rows]` for `row_sum`."""


class ShardedTables:
    """The tables of one model on one rank, after sharding. Every rank."""

    def __init__(
        self,
        module: ShardedEmbeddingBagCollection | ShardedEmbeddingCollection,
        shapes: dict[str, tuple[int, int]],
        column_bounds: dict[str, tuple[int, ...]],
        config: SparseOptimizerConfig,
    ) -> None:
        self.module = module
        self.column_bounds = column_bounds
        """Per table the first columns of its column shards, and its width."""
        self.shapes = shapes
        """Per table its rows and columns."""
        self.config = config
        """The optimizer of all tables."""
        self._fused: list[Any] = []
        self._unfused: list[tuple[Any, list[UnfusedTableOptimizer]]] = []
        self._copied_weights: list[Tensor] = []
        self.shards: list[TableShard] = []
        self.kernels: list[tuple[nn.Module, list[TableShard]]] = []
        """Each kernel with its shards, in the order of its tables."""
        self.extras: dict[str, GlobalTensor] = {}
        """Further tensors that are saved with the tables and restored in place, by `TABLE/NAME`."""
        self.copied_tables: set[str] = set()
        for kernel, copied in _kernels(module):
            embeddings = kernel.emb_module
            tables = kernel.config.embedding_tables
            if copied:
                self.copied_tables |= {table.name for table in tables}
                self._copied_weights.append(embeddings.weights)
            states = self._states_of(embeddings, copied)
            shards: list[TableShard] = []
            for table, weight, state in zip(tables, embeddings.split_embedding_weights(), states, strict=True):
                row, column = (0, 0) if copied else table.local_metadata.shard_offsets
                shards.append(TableShard(table.name, row, column, weight, state))
            self.shards += shards
            self.kernels.append((kernel, shards))

    def _states_of(self, embeddings: Any, copied: bool) -> list[dict[str, Tensor]]:
        weights = embeddings.split_embedding_weights()
        if not hasattr(embeddings, "split_optimizer_states"):
            if isinstance(self.module, ShardedEmbeddingCollection):
                # The kernel sums over bags on the CPU although it is told not to (FBGEMM 1.8).
                embeddings.forward = functools.partial(_look_up_each, embeddings)
            if self.config.clip_value is not None:
                # Gradients of copied tables are averaged over the ranks later; those of others come divided already.
                limit = self.config.clip_value * (dist.get_world_size() if copied else 1)
                embeddings.register_forward_hook(functools.partial(_clip_gradient, limit))
            optimizers = [UnfusedTableOptimizer(self.config, weight) for weight in weights]
            self._unfused.append((embeddings, optimizers))
            return [optimizer.states for optimizer in optimizers]
        self._fused.append(embeddings)
        names = STATE_NAMES[self.config.kind]
        states = embeddings.split_optimizer_states() if names else [()] * len(weights)
        return [
            # FBGEMM keeps element-wise states flat.
            {n: t.view(-1) if n == "row_sum" else t.view(weight.shape) for n, t in zip(names, tensors, strict=True)}
            for weight, tensors in zip(weights, states, strict=True)
        ]

    @torch.no_grad()
    def initialize(self, seed: int, bound: float | None = None) -> None:
        """Draw every weight from (seed, table, row), uniform within `bound`: the same under every plan.

        Without a bound it is 1/sqrt(rows), as in DLRM.
        """
        for shard in self.shards:
            rows, columns = self.shapes[shard.table]
            within = rows**-0.5 if bound is None else bound
            for block in range(shard.first_row // _ROWS_PER_DRAW, rows // _ROWS_PER_DRAW + 1):
                start = block * _ROWS_PER_DRAW
                first = max(shard.first_row, start)
                last = min(shard.first_row + shard.weight.shape[0], start + _ROWS_PER_DRAW)
                if first >= last:
                    break
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{shard.table}/{block}".encode()))
                drawn = torch.empty(_ROWS_PER_DRAW, columns).uniform_(-within, within, generator=generator)
                box = drawn[first - start : last - start]
                box = box[:, shard.first_column : shard.first_column + shard.weight.shape[1]]
                shard.weight[first - shard.first_row : last - shard.first_row].copy_(box)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the fused kernels' step size."""
        for embeddings in self._fused:
            embeddings.set_learning_rate(learning_rate)

    def set_num_steps(self, num_steps: int) -> None:
        """Tell the fused kernels how many steps were made, on which Adam's bias correction depends.

        To be told before every step: by themselves they count look-ups, those of scoring as well.
        """
        if self.config.kind == "adam":
            for embeddings in self._fused:
                # What is computed with is `iter_cpu`, which a look-up takes from `iter` where it is 0. FBGEMM's own
                # setter writes `iter` alone, and reads it for its log, for which every step would wait for the GPU.
                embeddings.iter.fill_(num_steps)
                embeddings.iter_cpu.fill_(num_steps)

    def copied_weights(self) -> list[Tensor]:
        """Parameters of tables that every rank copies; their gradients have to be averaged over the ranks."""
        return self._copied_weights

    def step_unfused(self, learning_rate: float, num_steps: int) -> None:
        """Update the tables whose kernels do not do it in the backward pass, from their (averaged) gradients."""
        for embeddings, optimizers in self._unfused:
            gradient = embeddings.weights.grad
            if gradient is None:
                continue
            start = 0
            for optimizer, weight in zip(optimizers, embeddings.split_embedding_weights(), strict=True):
                part = gradient[start : start + weight.numel()].view(weight.shape)
                optimizer.step(part, learning_rate, num_steps)
                start += weight.numel()
            embeddings.weights.grad = None

    def state(self) -> dict[str, GlobalTensor]:
        """Weights, optimizer states and extras as global tensors.

        Row-wise Adagrad keeps one sum per row and column shard: `[rows, column shards]`.
        """
        tensors: dict[str, GlobalTensor] = {}
        for table, (rows, columns) in self.shapes.items():
            shards = [shard for shard in self.shards if shard.table == table]
            copied = table in self.copied_tables
            pieces = tuple(Piece((s.first_row, s.first_column), s.weight) for s in shards)
            tensors[f"{table}/weight"] = GlobalTensor((rows, columns), torch.float32, pieces, copied)
            bounds = self.column_bounds[table]
            for name in STATE_NAMES[self.config.kind]:
                pieces = tuple(
                    Piece((s.first_row, bounds.index(s.first_column)), s.states[name].unsqueeze(1))
                    if name == "row_sum"
                    else Piece((s.first_row, s.first_column), s.states[name])
                    for s in shards
                )
                width = len(bounds) - 1 if name == "row_sum" else columns
                tensors[f"{table}/{name}"] = GlobalTensor((rows, width), torch.float32, pieces, copied)
        return {**tensors, **self.extras}

    def load(self, read: ReadTensors, saved_bounds: dict[str, tuple[int, ...]]) -> None:
        """Fill weights and states from a checkpoint whose tables were cut at `saved_bounds`.

        Where the columns are cut in another way, a row's new sum is the mean of the old ones, weighted by the
        columns they share: exact from column-wise to whole, since the sum is of means over the columns.
        """
        targets = self.state()
        recut: list[tuple[Tensor, Tensor, Tensor]] = []
        for table, bounds in self.column_bounds.items():
            # A table that was not saved is for the reader to name.
            if f"{table}/row_sum" not in targets or bounds == saved_bounds.get(table, bounds):
                continue
            wholes: dict[int, Tensor] = {}
            for piece in targets[f"{table}/row_sum"].pieces:
                row, shard = piece.offsets
                # Column shards of the same rows, where a rank has several, read the same old sums.
                whole = wholes.setdefault(row, torch.empty(piece.tensor.shape[0], len(saved_bounds[table]) - 1))
                recut.append((piece.tensor, whole, _overlaps(bounds[shard], bounds[shard + 1], saved_bounds[table])))
            shape = (self.shapes[table][0], len(saved_bounds[table]) - 1)
            pieces = tuple(Piece((row, 0), whole) for row, whole in wholes.items())
            targets[f"{table}/row_sum"] = GlobalTensor(shape, torch.float32, pieces)
        read(targets)
        for target, whole, weights in recut:
            target.copy_((whole @ weights).unsqueeze(1))


def _clip_gradient(limit: float, module: nn.Module, inputs: Any, embeddings: Tensor) -> None:
    """Have the gradient of what was looked up clipped, before it is summed to the rows', as the fused kernels do."""
    if embeddings.requires_grad:
        embeddings.register_hook(lambda gradient: gradient.clamp(-limit, limit))


def _look_up_each(embeddings: Any, indices: Tensor, offsets: Tensor) -> Tensor:
    """Return the row of each index, feature after feature; a kernel's tables, or column shards, are of one width."""
    width = embeddings.split_embedding_weights()[0].shape[1]
    first_rows = embeddings.weights_offsets // width  # of each feature's table
    ends = offsets[:: (len(offsets) - 1) // len(first_rows)]
    shifts = torch.repeat_interleave(first_rows, ends.diff())
    return nn.functional.embedding(indices + shifts, embeddings.weights.view(-1, width))


def _kernels(module: ShardedEmbeddingBagCollection | ShardedEmbeddingCollection) -> Iterator[tuple[Any, bool]]:
    """Yield each kernel, and whether every rank holds a copy of its tables."""
    for position, lookup in enumerate(module._lookups):
        copied = isinstance(lookup, DistributedDataParallel)
        if copied:
            # Its gradients travel with the dense ones, in an order that never changes: DDP rebuilds its
            # buckets after the first step, so that a resumed run would add in another order.
            lookup = cast("nn.Module", lookup.module)
            module._lookups[position] = lookup
        for kernel in getattr(lookup, "_emb_modules", ()):
            yield kernel, copied


def _overlaps(start: int, stop: int, bounds: tuple[int, ...]) -> Tensor:
    pairs = zip(bounds[:-1], bounds[1:], strict=True)
    common = torch.tensor([max(0, min(stop, right) - max(start, left)) for left, right in pairs], dtype=torch.float32)
    return common / common.sum()
