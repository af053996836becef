"""What a run knows at any moment: the arms, the place in the stream, the scores of the day."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from raysparse.data.batch import Batch
from raysparse.data.dataset import Day
from raysparse.data.stream import DayStream
from raysparse.train.arm import TRAINED, Arm, ArmFactory
from raysparse.train.task import Task


@dataclass
class Position:
    """The place in the stream: it holds for any number of workers."""

    day_index: int = 0
    """Day that is being scored or trained on, counted from the run's first."""
    batch: int = 0
    """Batch of the day that is trained on next."""
    num_steps: int = 0
    """Steps made since the start of the run."""


@dataclass
class TrainState:
    """Everything that the loop changes and the callbacks see. Every rank."""

    days: tuple[Day, ...]
    stream: DayStream
    arms: list[Arm]
    make_arm: ArmFactory
    task: Task
    seed: int
    device: torch.device
    position: Position = field(default_factory=Position)
    records: list[dict[str, Any]] = field(default_factory=list)
    """History lines of the current day, one per arm, from its scores on; empty until the day is scored."""
    row_losses: dict[str, Tensor] = field(default_factory=dict)
    """Losses `[B]` of the batch that has just been scored, per arm; 0 for padding."""
    row_weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Weights `[B]` of the batch that has just been scored; 0 for padding."""
    train_seconds: float = 0.0
    """Time spent on training on the current day."""
    save_requested: bool = False
    """Set on rank 0 to have all ranks save; they agree on it a step later."""
    save_agreed: bool = False
    """Set on every rank after the same step."""
    step_losses: dict[str, Tensor] = field(default_factory=dict)
    """Sum of the losses of this rank's rows in the step that has just ended, per arm, before it was learned."""
    batch: Batch | None = None
    """Batch of the step that has just ended."""
    stopped: bool = False
    """Set on every rank once a day is scored: it is not learned, and the run goes on with its last day."""

    @property
    def day(self) -> Day:
        """The current day."""
        return self.days[self.position.day_index]

    @property
    def is_rank_0(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.stream.rank == 0

    @property
    def trained(self) -> Arm:
        """The arm that the job trains."""
        return next(arm for arm in self.arms if arm.name == TRAINED)

    def arm(self, name: str) -> Arm | None:
        """The arm of that name, if there is one."""
        return next((arm for arm in self.arms if arm.name == name), None)
