"""What a run's models learn, and what their predictions are worth: clicks, or the next items of sequences."""

from typing import Any, Protocol

from torch import Tensor

from raysparse.data.batch import Batch
from raysparse.train.arm import Arm


class TaskMetrics(Protocol):
    """Sums up a day's predictions of one arm; starts fresh for each day. Every rank."""

    def update(self, arm: Arm, batch: Batch) -> Tensor:
        """Predict this rank's rows and add them. Returns a loss per row `[B]`, 0 for padding; all ranks together."""
        ...

    def compute(self) -> dict[str, Any]:
        """Return the metrics of what all ranks have added, and `rows`; all ranks together."""
        ...


class Task(Protocol):
    """The loss that is descended on and the metrics that are reported. Every rank."""

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Predict this rank's rows and return the sum of their losses; `num_steps` were made before. All ranks."""
        ...

    def metrics(self) -> TaskMetrics:
        """Return metrics without predictions."""
        ...
