"""The weights of a model spread over ranks, with their optimizers: what one arm of a run trains with."""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingEnv, ShardingPlan

from raysparse.models import AnyRecommender
from raysparse.sharding.global_tensor import GlobalTensor
from raysparse.sharding.head import ReadShapes, TrainedHead
from raysparse.sharding.optimizer import DenseOptimizerConfig, SparseOptimizerConfig
from raysparse.sharding.plan import Sharder
from raysparse.sharding.tables import ReadTensors, ShardedTables


class ShardedWeights:
    """Tables that lie where the plan says, and a head that every rank copies. Every rank."""

    def __init__(
        self,
        model: AnyRecommender,
        plan: ShardingPlan,
        sharder: Sharder,
        device: torch.device,
        optimizers: tuple[SparseOptimizerConfig, DenseOptimizerConfig],
    ) -> None:
        sparse, dense = optimizers
        shapes = {config.name: (config.num_embeddings, config.embedding_dim) for config in model.table_configs}
        table_plan = cast(EmbeddingModuleShardingPlan, plan.plan["tables"])
        group = dist.group.WORLD
        assert group is not None
        env = ShardingEnv.from_process_group(group)
        # The sharder is the one of the model's kind of tables; the types cannot say that they go together.
        sharded = sharder.shard(cast(Any, model.tables), dict(table_plan), env, device)
        self.tables = ShardedTables(sharded, shapes, _column_bounds(table_plan, shapes), sparse)
        self.device = device
        self._sparse = sparse
        self.trained_head = TrainedHead(model.head, dense, device)
        # The sharded tables answer to the same call; TorchRec's types do not say so.
        model.tables = cast("nn.Module", sharded)  # pyright: ignore[reportAttributeAccessIssue]
        self._factor = 1.0

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        return self.trained_head.module

    @property
    def column_bounds(self) -> Mapping[str, tuple[int, ...]]:
        """Where each table is cut into columns."""
        return self.tables.column_bounds

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together. `num_steps` counts this step, from 1.

        The mean of the ranks' losses is what is descended on. Tables are updated within the backward pass.
        """
        self.trained_head.zero_grad()
        loss.backward()
        self.trained_head.step(self.tables.copied_weights())
        self.finish_tables(num_steps)

    def finish_tables(self, num_steps: int) -> None:
        """End a step for the tables, once gradients are averaged."""
        self.tables.step_unfused(self._sparse.learning_rate * self._factor, num_steps)

    def begin_step(self, factor: float, num_steps: int) -> None:
        """Scale the learning rates of tables and head, and say how many steps were made; before the look-up."""
        self.tables.set_num_steps(num_steps)
        if factor == self._factor:
            return
        self._factor = factor
        self.tables.set_learning_rate(self._sparse.learning_rate * factor)
        self.trained_head.set_learning_rate_factor(factor)

    def copy_from(self, other: "ShardedWeights") -> None:
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

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]]) -> None:
        """Restore what `state` gave, from any plan and number of ranks; all ranks together."""
        self.load_tables(read, bounds)
        self.trained_head.load(read, shapes)

    def load_tables(self, read: ReadTensors, bounds: dict[str, tuple[int, ...]]) -> None:
        """Restore what `table_state` gave, from any plan and number of ranks; all ranks together."""
        self.tables.load(lambda wanted: read({f"tables/{name}": t for name, t in wanted.items()}), bounds)


def _column_bounds(plan: EmbeddingModuleShardingPlan, shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    bounds: dict[str, tuple[int, ...]] = {}
    for table, (_, columns) in shapes.items():
        shards = getattr(plan[table].sharding_spec, "shards", None) or []
        bounds[table] = (*sorted({shard.shard_offsets[1] for shard in shards} | {0}), columns)
    return bounds
