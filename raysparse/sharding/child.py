"""A child: a head of its own that reads what its parent has looked up, or tables copied from the parent's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import SequenceBatch
from raysparse.sharding.global_tensor import GlobalTensor, replicated
from raysparse.sharding.head import ReadShapes, TrainedHead
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.optimizer import DenseOptimizerConfig
from raysparse.sharding.sequence_model import ShardedSequenceModel
from raysparse.sharding.tables import ReadTensors, ShardedTables
from raysparse.sharding.weights import ShardedWeights


@dataclass(frozen=True)
class OwnTables:
    """A copy of the parent's tables that one child alone reads."""

    model: ShardedWeights
    """Holds them; its head is not used."""
    learn: bool
    """Whether they learn with the child, or stay as they were copied."""


class Child:
    """A head over the parent's tables, which it reads and never changes, or over a copy of its own. Every rank.

    The parent's tables cost no second look-up; a copy costs one, and its memory.
    """

    def __init__(
        self,
        parent: ShardedWeights,
        head: nn.Module,
        dense: DenseOptimizerConfig,
        device: torch.device,
        own: OwnTables | None = None,
    ) -> None:
        self.parent = parent
        self.own = own
        self.extras: Mapping[str, Tensor] = {}
        """Further tensors that are saved with the child and restored in place."""
        self.trained_head = TrainedHead(head, dense, device)
        self.rate = 1.0
        """Its dense learning rate as a share of the parent's."""
        self._factor = 1.0

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        return self.trained_head.module

    @property
    def column_bounds(self) -> Mapping[str, tuple[int, ...]]:
        """Where each table of its own is cut into columns."""
        return {} if self.own is None else self.own.model.column_bounds

    @property
    def source(self) -> ShardedWeights:
        """Whose tables it reads."""
        return self.parent if self.own is None else self.own.model

    def learnable(self, rows: Tensor) -> Tensor:
        """Return rows of tables with a gradient where they learn with the child, without one where they do not."""
        return rows if self.own is not None and self.own.learn else rows.detach()

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together. `num_steps` counts this step, from 1."""
        self.trained_head.zero_grad()
        loss.backward()
        if self.own is None or not self.own.learn:
            self.trained_head.step()
            return
        self.trained_head.step(self.own.model.tables.copied_weights())
        self.own.model.finish_tables(num_steps)

    def begin_step(self, factor: float, num_steps: int) -> None:
        """Scale the learning rates of the head and of tables that learn; `num_steps` were made."""
        if self.own is not None:
            self.own.model.begin_step(factor, num_steps)
        factor *= self.rate
        if factor != self._factor:
            self._factor = factor
            self.trained_head.set_learning_rate_factor(factor)

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name: `head/...`, `head_optimizer/...`, `extras/...`, `tables/...`."""
        extras = {f"extras/{name}": replicated(tensor) for name, tensor in self.extras.items()}
        tables = {} if self.own is None else self.own.model.table_state()
        return {**tables, **self.trained_head.state(), **extras}

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]]) -> None:
        """Restore what `state` gave, on any number of ranks."""
        if self.own is not None:
            self.own.model.load_tables(read, bounds)
        self.trained_head.load(read, shapes)
        if self.extras:
            read({f"extras/{name}": replicated(tensor) for name, tensor in self.extras.items()})


class ChildModel(Child):
    """A child of a model of clicks."""

    def forward(self, batch: Batch) -> Tensor:
        """Return this rank's logits `[B]`; all ranks together."""
        return self.head(batch.dense, self.learnable(cast(ShardedModel, self.source).look_up(batch)))


class SequenceChild(Child):
    """A child of a model of next items; an item's score is the product of its row with the child's own encoding."""

    @property
    def tables(self) -> ShardedTables:
        """The rows of items."""
        return self.source.tables

    def encode(self, sequences: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return per target the encoding `[P, D]` and the table's row `[P, D]`, and the candidates' rows `[N, D]`."""
        looked_up = cast(ShardedSequenceModel, self.source).look_up(sequences, candidates)
        rows, candidate_rows = (self.learnable(rows) for rows in looked_up)
        encoded = self.head(rows[sequences.input_places], sequences.input_offsets, sequences.target_inputs)
        return encoded, rows[sequences.target_places], candidate_rows


def make_child(
    parent: ShardedWeights,
    head: nn.Module,
    dense: DenseOptimizerConfig,
    device: torch.device,
    own: OwnTables | None = None,
) -> Child:
    """Return a child of the parent's kind."""
    kind = SequenceChild if isinstance(parent, ShardedSequenceModel) else ChildModel
    return kind(parent, head, dense, device, own)
