"""A recommender spread over ranks, with its optimizers: what one arm of a run trains with."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingEnv, ShardingPlan

from raysparse.data.batch import Batch
from raysparse.models import Recommender
from raysparse.sharding.global_tensor import GlobalTensor
from raysparse.sharding.head import ReadShapes, TrainedHead
from raysparse.sharding.optimizer import (
    DenseOptimizerConfig,
    SparseOptimizerConfig,
)
from raysparse.sharding.plan import TableSharder
from raysparse.sharding.tables import ReadTensors, ShardedTables


class ShardedModel:
    """A model whose tables lie where the plan says and whose head every rank copies. Every rank.

    What it has looked up and predicted for a batch is kept until the next one, for children that read it.
    """

    def __init__(
        self,
        model: Recommender,
        plan: ShardingPlan,
        sharder: TableSharder,
        device: torch.device,
        optimizers: tuple[SparseOptimizerConfig, DenseOptimizerConfig],
    ) -> None:
        sparse, dense = optimizers
        configs = model.tables.embedding_bag_configs()
        shapes = {config.name: (config.num_embeddings, config.embedding_dim) for config in configs}
        table_plan = cast(EmbeddingModuleShardingPlan, plan.plan["tables"])
        group = dist.group.WORLD
        assert group is not None
        env = ShardingEnv.from_process_group(group)
        sharded = sharder.shard(model.tables, dict(table_plan), env, device)
        self.tables = ShardedTables(sharded, shapes, _column_bounds(table_plan, shapes), sparse)
        self.device = device
        self._sparse = sparse
        self._model = model
        self.trained_head = TrainedHead(model.head, dense, device)
        self._replace_tables(sharded)
        self._factor = 1.0
        self._seen: Batch | None = None
        self._pooled: Tensor | None = None
        self._logits: Tensor | None = None

    def _replace_tables(self, sharded: ShardedEmbeddingBagCollection) -> None:
        # The sharded tables answer to the same call; TorchRec's types do not say so.
        self._model.tables = cast("nn.Module", sharded)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        return self.trained_head.module

    @property
    def column_bounds(self) -> Mapping[str, tuple[int, ...]]:
        """Where each table is cut into columns."""
        return self.tables.column_bounds

    def look_up(self, batch: Batch) -> Tensor:
        """Return this rank's pooled embeddings `[B, F, D]`, looked up once per batch; all ranks together."""
        pooled = self._pooled
        if self._seen is not batch or pooled is None:
            pooled = self._model.look_up(batch.ids)
            self._seen, self._pooled, self._logits = batch, pooled, None
        return pooled

    def forward(self, batch: Batch) -> Tensor:
        """Return this rank's logits `[B]`, computed once per batch; all ranks together."""
        pooled = self.look_up(batch)
        logits = self._logits
        if logits is None:
            logits = self._logits = self.head(batch.dense, pooled)
        return logits

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together. `num_steps` counts this step, from 1.

        The mean of the ranks' losses is what is descended on. Tables are updated within the backward pass.
        """
        self.trained_head.zero_grad()
        loss.backward()
        self.trained_head.step(self.tables.copied_weights())
        self.finish_tables(num_steps)

    def finish_tables(self, num_steps: int) -> None:
        """End a step for the tables, once gradients are averaged; what was looked up before is forgotten."""
        self._seen = self._pooled = self._logits = None
        self.tables.step_unfused(self._sparse.learning_rate * self._factor, num_steps)

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the learning rates of tables and head."""
        if factor == self._factor:
            return
        self._factor = factor
        self.tables.set_learning_rate(self._sparse.learning_rate * factor)
        self.trained_head.set_learning_rate_factor(factor)

    def copy_from(self, other: "ShardedModel") -> None:
        """Take the weights of a model under the same plan, and the state of its tables' optimizer; no talking."""
        with torch.no_grad():
            for mine, theirs in zip(self.tables.shards, other.tables.shards, strict=True):
                mine.weight.copy_(theirs.weight)
                for name, state in mine.states.items():
                    state.copy_(theirs.states[name])
            self.head.load_state_dict(other.head.state_dict())

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name: `tables/...`, `head/...`, `head_optimizer/...`."""
        return {**self.table_state(), **self.trained_head.state()}

    def table_state(self) -> dict[str, GlobalTensor]:
        """What the tables have learned, by name: `tables/...`."""
        return {f"tables/{name}": tensor for name, tensor in self.tables.state().items()}

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]], num_steps: int) -> None:
        """Restore what `state` gave, from any plan and number of ranks; all ranks together."""
        self.load_tables(read, bounds, num_steps)
        self.trained_head.load(read, shapes)

    def load_tables(self, read: ReadTensors, bounds: dict[str, tuple[int, ...]], num_steps: int) -> None:
        """Restore what `table_state` gave, from any plan and number of ranks; all ranks together."""
        self.tables.load(lambda wanted: read({f"tables/{name}": t for name, t in wanted.items()}), bounds)
        self.tables.set_num_steps(num_steps)


def _column_bounds(plan: EmbeddingModuleShardingPlan, shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    bounds: dict[str, tuple[int, ...]] = {}
    for table, (_, columns) in shapes.items():
        shards = getattr(plan[table].sharding_spec, "shards", None) or []
        bounds[table] = (*sorted({shard.shard_offsets[1] for shard in shards} | {0}), columns)
    return bounds
