"""Builds the arms of a run: models, sharded by one plan, with their costs. Every rank."""

import torch
from torch import nn

from raysparse.cost.latency import HeadCost, measure_encoder, measure_head
from raysparse.cost.record import cost_of
from raysparse.data.dataset import Dataset
from raysparse.job import TrainJob
from raysparse.models import AnyRecommender, Recommender, SequenceModelConfig, build_model
from raysparse.models.sequence_recommender import FIRST_BOUND
from raysparse.sharding.child import OwnTables, make_child
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.optimizer import is_fused, state_bytes_per_row
from raysparse.sharding.plan import PlannedTable, agree_topology, build_sharder, describe_plan, make_plan
from raysparse.sharding.sequence_model import ShardedSequenceModel
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.arm import Arm


class ArmBuilder:
    """Builds arms that are all sharded by one plan. Every rank; it is made by all ranks together."""

    def __init__(self, job: TrainJob, dataset: Dataset, device: torch.device, local_world_size: int) -> None:
        self._job = job
        self._dataset = dataset
        self._device = device
        model = self._build()
        self._sharder = build_sharder(model, job.optimizer.sparse)
        self._plan = make_plan(
            model,
            self._sharder,
            job.sharding,
            agree_topology(local_world_size, device, job.sharding),
            fused=is_fused(job.optimizer.sparse, device),
        )
        self.cost = cost_of(model, dataset.schema)
        self.planned: list[PlannedTable] = describe_plan(
            model, self._plan, lambda width: state_bytes_per_row(job.optimizer.sparse, width)
        )

    def __call__(self, name: str, *, trains: bool) -> Arm:
        """Return an arm with weights drawn from the job's seed; all ranks together."""
        sharded = self._shard(self._build())
        sharded.tables.initialize(self._job.seed, self._first_bound())
        return Arm(name, sharded, trains, self.cost.macs)

    def child(self, name: str, parent: ShardedWeights, head: nn.Module, macs: int, own: OwnTables | None = None) -> Arm:
        """Return an arm of a head that reads the parent's tables, or a copy of its own."""
        model = make_child(parent, head, self._job.optimizer.dense, self._device, own)
        return Arm(name, model, trains=True, macs=macs)

    def measure(self, arm: Arm) -> HeadCost:
        """Count and time an arm's head; any rank, alone."""
        schema, model = self._dataset.schema, self._job.model
        if isinstance(model, SequenceModelConfig):
            return measure_encoder(arm.model.head, model.max_length, model.embedding_dim)
        return measure_head(arm.model.head, schema.num_dense_inputs, len(schema.ids), model.embedding_dim)

    def _build(self) -> AnyRecommender:
        return build_model(self._job.model, self._dataset.schema, self._job.seed)

    def _shard(self, model: AnyRecommender) -> ShardedWeights:
        optimizers = (self._job.optimizer.sparse, self._job.optimizer.dense)
        if isinstance(model, Recommender):
            return ShardedModel(model, self._plan, self._sharder, self._device, optimizers)
        return ShardedSequenceModel(model, self._plan, self._sharder, self._device, optimizers)

    def _first_bound(self) -> float | None:
        return FIRST_BOUND if isinstance(self._job.model, SequenceModelConfig) else None
