"""An arm: one model of a comparison. All arms of a run read the same batches."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.data.batch import Batch
from raysparse.sharding.model import ShardedModel

TRAINED = "trained"
"""Name of the arm that every run has."""


@dataclass
class Arm:
    """A model with its name; every rank holds its share."""

    name: str
    model: ShardedModel
    trains: bool
    """Whether it learns from the days, or only predicts them."""
    macs: int
    """Multiply-adds of its head for one row."""

    def loss_sum(self, batch: Batch) -> Tensor:
        """Predict this rank's rows and return the sum of their losses."""
        logits = self.model.forward(batch)
        return binary_cross_entropy_with_logits(logits, batch.labels, batch.weights, reduction="sum")


class ArmFactory(Protocol):
    """Builds a further arm, sharded by the same plan."""

    def __call__(self, name: str, *, trains: bool) -> Arm:
        """Return a new arm with fresh weights; all ranks together."""
        ...
