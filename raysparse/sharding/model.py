"""A recommender of clicks spread over ranks."""

import torch
from torch import Tensor
from torchrec.distributed.types import ShardingPlan

from raysparse.data.batch import Batch
from raysparse.models import Recommender
from raysparse.sharding.optimizer import DenseOptimizerConfig, SparseOptimizerConfig
from raysparse.sharding.plan import Sharder
from raysparse.sharding.weights import ShardedWeights


class ShardedModel(ShardedWeights):
    """Makes logits of a batch. Every rank.

    What it has looked up and predicted for a batch is kept until the next one, for children that read it.
    """

    def __init__(
        self,
        model: Recommender,
        plan: ShardingPlan,
        sharder: Sharder,
        device: torch.device,
        optimizers: tuple[SparseOptimizerConfig, DenseOptimizerConfig],
    ) -> None:
        super().__init__(model, plan, sharder, device, optimizers)
        self._model = model
        self._seen: Batch | None = None
        self._pooled: Tensor | None = None
        self._logits: Tensor | None = None

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

    def finish_tables(self, num_steps: int) -> None:
        """End a step for the tables, once gradients are averaged; what was looked up before is forgotten."""
        self._seen = self._pooled = self._logits = None
        super().finish_tables(num_steps)
