"""A recommender spread over ranks, with its optimizers: what one arm of a run trains with."""

from collections.abc import Callable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingEnv, ShardingPlan

from raysparse.data.batch import Batch
from raysparse.models import Recommender
from raysparse.sharding.global_tensor import GlobalTensor, replicated
from raysparse.sharding.optimizer import (
    DenseOptimizerConfig,
    SparseOptimizerConfig,
    build_dense_optimizer,
)
from raysparse.sharding.plan import TableSharder
from raysparse.sharding.tables import ReadTensors, ShardedTables

ReadShapes = Callable[[str], dict[str, tuple[tuple[int, ...], torch.dtype]]]
"""Shapes and types of the checkpoint's tensors whose names start so, by the rest of the name."""


class ShardedModel:
    """A model whose tables lie where the plan says and whose head every rank copies. Every rank.

    The head's gradients are averaged in one flat exchange after the backward pass: its order never changes,
    which makes a resumed run add in the same order (DDP rebuilds its buckets after the first step), and a
    head whose active parameters change from step to step needs nothing special.
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
        self._dense = dense
        self._model = model
        self._model.head = model.head.to(device)
        self._replace_tables(sharded)
        self._head_parameters = dict(model.head.named_parameters())
        self._optimizer = build_dense_optimizer(dense, list(self._head_parameters.values()))
        self._world_size = dist.get_world_size()
        self._factor = 1.0

    def _replace_tables(self, sharded: ShardedEmbeddingBagCollection) -> None:
        # The sharded tables answer to the same call; TorchRec's types do not say so.
        self._model.tables = cast("nn.Module", sharded)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        return self._model.head

    def forward(self, batch: Batch) -> Tensor:
        """Return this rank's logits `[B]`; all ranks together."""
        return self._model(batch.dense, batch.ids)

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together. `num_steps` counts this step, from 1.

        The mean of the ranks' losses is what is descended on. Tables are updated within the backward pass.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        if self._dense.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._head_parameters.values(), self._dense.clip_norm)
        self._optimizer.step()
        self.tables.step_unfused(self._sparse.learning_rate * self._factor, num_steps)

    def _average_gradients(self) -> None:
        if self._world_size == 1:
            return
        parameters = [*self._head_parameters.values(), *self.tables.copied_weights()]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self._world_size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the learning rates of tables and head."""
        if factor == self._factor:
            return
        self._factor = factor
        self.tables.set_learning_rate(self._sparse.learning_rate * factor)
        for group in self._optimizer.param_groups:
            group["lr"] = self._dense.learning_rate * factor

    def copy_from(self, other: "ShardedModel") -> None:
        """Take the weights of a model under the same plan; no talking."""
        with torch.no_grad():
            for mine, theirs in zip(self.tables.shards, other.tables.shards, strict=True):
                mine.weight.copy_(theirs.weight)
            self.head.load_state_dict(other.head.state_dict())

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name: `tables/...`, `head/...`, `head_optimizer/...`."""
        tensors = {f"tables/{name}": tensor for name, tensor in self.tables.state().items()}
        for name, tensor in self.head.state_dict().items():
            tensors[f"head/{name}"] = replicated(tensor)
        for name, parameter in self._head_parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"head_optimizer/{name}/{key}"] = replicated(value)
        return tensors

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]], num_steps: int) -> None:
        """Restore what `state` gave, from any plan and number of ranks; all ranks together."""
        self.tables.load(lambda wanted: read({f"tables/{name}": t for name, t in wanted.items()}), bounds)
        self.tables.set_num_steps(num_steps)
        for name, parameter in self._head_parameters.items():
            # torch creates an optimizer's state at its first step only; the checkpoint says what there is.
            for key, (shape, dtype) in shapes(f"head_optimizer/{name}/").items():
                on = parameter.device if shape else torch.device("cpu")
                self._optimizer.state[parameter][key] = torch.empty(shape, dtype=dtype, device=on)
        read({name: tensor for name, tensor in self.state().items() if not name.startswith("tables/")})


def _column_bounds(plan: EmbeddingModuleShardingPlan, shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    bounds: dict[str, tuple[int, ...]] = {}
    for table, (_, columns) in shapes.items():
        shards = getattr(plan[table].sharding_spec, "shards", None) or []
        bounds[table] = (*sorted({shard.shard_offsets[1] for shard in shards} | {0}), columns)
    return bounds
