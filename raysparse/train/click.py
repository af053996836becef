"""The task of click models: whether a row's label is 1."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.data.batch import Batch
from raysparse.models.nasrec.supernet import NASRecSupernet
from raysparse.sharding.child import ChildModel
from raysparse.sharding.model import ShardedModel
from raysparse.train.arm import Arm
from raysparse.train.metrics import DayMetrics

ClickModel = ShardedModel | ChildModel
"""Models that make a logit of a row."""


class ClickTask:
    """Log loss of logits. Every rank."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Predict this rank's rows and return the sum of their losses; nothing is drawn, so no step matters."""
        targets = batch.labels
        if arm.teacher:
            assert isinstance(arm.model, ChildModel)
            targets = targets.lerp(cast(ShardedModel, arm.model.parent).forward(batch).detach().sigmoid(), arm.teacher)
        logits = cast(ClickModel, arm.model).forward(batch)
        return binary_cross_entropy_with_logits(logits, targets, batch.weights, reduction="sum")

    def metrics(self) -> "ClickMetrics":
        """Return metrics without predictions."""
        return ClickMetrics(self._device)


class PathsTask(ClickTask):
    """The losses of all networks of a supernet that a step trains: their mean. Every rank.

    With `distillation`, the first of them is the widest one, and its prediction takes that share of the others' target.
    """

    def __init__(self, device: torch.device, distillation: float = 0.0) -> None:
        super().__init__(device)
        self._distillation = distillation

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Predict this rank's rows with each network and return the mean of the sums of their losses.

        The rows are looked up once for all of them; all ranks together.
        """
        model = cast(ShardedModel, arm.model)
        supernet = cast(NASRecSupernet, model.head)
        pooled = model.look_up(batch)
        logits = [supernet(batch.dense, pooled, choice) for choice in supernet.choices]
        taught = batch.labels
        if self._distillation:
            taught = taught.lerp(logits[0].detach().sigmoid(), self._distillation)
        targets = [batch.labels, *[taught] * (len(logits) - 1)]
        losses = [
            binary_cross_entropy_with_logits(predicted, target, batch.weights, reduction="sum")
            for predicted, target in zip(logits, targets, strict=True)
        ]
        return torch.stack(losses).mean()


class ClickMetrics:
    """`DayMetrics` of an arm's logits. Every rank."""

    def __init__(self, device: torch.device) -> None:
        self._metrics = DayMetrics(device)

    def update(self, arm: Arm, batch: Batch) -> Tensor:
        """Predict this rank's rows and add them. Returns their log losses `[B]`, 0 for padding; all ranks together."""
        logits = cast(ClickModel, arm.model).forward(batch)
        return self._metrics.update(logits, batch.labels, batch.weights)

    def compute(self) -> dict[str, Any]:
        """Return the fields of `train.metrics.Metrics`; all ranks together."""
        return self._metrics.compute().model_dump()
