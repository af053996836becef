"""An arm: one model of a comparison. All arms of a run read the same batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from raysparse.sharding.child import OwnTables
from raysparse.sharding.global_tensor import GlobalTensor
from raysparse.sharding.head import ReadShapes
from raysparse.sharding.tables import ReadTensors
from raysparse.sharding.weights import ShardedWeights

TRAINED = "trained"
"""Name of the arm that every run has: the dense model, and the parent of the others."""


class ArmModel(Protocol):
    """What the loop asks of a model; ShardedWeights has tables of its own, a Child reads its parent's."""

    @property
    def column_bounds(self) -> Mapping[str, tuple[int, ...]]:
        """Where each table of its own is cut into columns."""
        ...

    @property
    def head(self) -> nn.Module:
        """The dense part."""
        ...

    def step(self, loss: Tensor, num_steps: int) -> None:
        """Learn from this rank's loss; all ranks together. `num_steps` counts this step, from 1."""
        ...

    def begin_step(self, factor: float, num_steps: int) -> None:
        """Scale the learning rates, and say how many steps were made; before the look-up, which takes both along."""
        ...

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name."""
        ...

    def load(self, read: ReadTensors, shapes: ReadShapes, bounds: dict[str, tuple[int, ...]]) -> None:
        """Restore what `state` gave."""
        ...


@dataclass
class Arm:
    """A model with its name; every rank holds its share."""

    name: str
    model: ArmModel
    trains: bool
    """Whether it learns from the days, or only predicts them."""
    macs: int
    """Multiply-adds of its head for one row."""
    teacher: float = 0.0
    """Share of a child's target that its parent's prediction takes; the label has the rest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the history says about it beside its scores."""
    rests: bool = False
    """Whether it is neither scored nor trained for now."""


class ArmFactory(Protocol):
    """Builds further arms."""

    def __call__(self, name: str, *, trains: bool) -> Arm:
        """Return a new arm with tables of its own, fresh weights and the same plan; all ranks together."""
        ...

    def child(self, name: str, parent: ShardedWeights, head: nn.Module, macs: int, own: OwnTables | None = None) -> Arm:
        """Return an arm of a head that reads the parent's tables, or a copy of its own."""
        ...
