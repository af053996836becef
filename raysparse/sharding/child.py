"""A child: a head of its own that reads what its parent has looked up."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raysparse.data.batch import Batch
from raysparse.sharding.global_tensor import GlobalTensor, replicated
from raysparse.sharding.head import ReadShapes, TrainedHead
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.optimizer import DenseOptimizerConfig
from raysparse.sharding.tables import ReadTensors


class ChildModel:
    """A head over the parent's tables, which it reads and never changes; it costs no second look-up. Every rank."""

    column_bounds: Mapping[str, tuple[int, ...]] = {}  # noqa: RUF012 - it has no tables

    def __init__(
        self, parent: ShardedModel, head: nn.Module, dense: DenseOptimizerConfig, device: torch.device
    ) -> None:
        self.parent = parent
        self.extras: Mapping[str, Tensor] = {}
        """Further tensors that are saved with the child and restored in place."""
        self.trained_head = TrainedHead(head, dense, device)
        self._factor = 1.0

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        return self.trained_head.module

    def forward(self, batch: Batch) -> Tensor:
        """Return this rank's logits `[B]`; all ranks together."""
        return self.head(batch.dense, self.parent.look_up(batch).detach())

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together."""
        self.trained_head.zero_grad()
        loss.backward()
        self.trained_head.step()

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the head's learning rate."""
        if factor != self._factor:
            self._factor = factor
            self.trained_head.set_learning_rate_factor(factor)

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name: `head/...`, `head_optimizer/...`, `extras/...`."""
        extras = {f"extras/{name}": replicated(tensor) for name, tensor in self.extras.items()}
        return {**self.trained_head.state(), **extras}

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]], num_steps: int) -> None:
        """Restore what `state` gave, on any number of ranks."""
        self.trained_head.load(read, shapes)
        if self.extras:
            read({f"extras/{name}": replicated(tensor) for name, tensor in self.extras.items()})
