"""Metrics of one day's predictions, over all ranks together."""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.config import Config

_LOGIT_RANGE = 16.0
_NUM_BINS = 1 << 17


class Metrics(Config):
    """What a day's predictions were worth; null where the day does not define it."""

    rows: int
    base_rate: float
    """Share of rows with label 1."""
    log_loss: float
    """Mean natural-log loss."""
    ne: float | None
    """Normalized entropy: log loss over the entropy of the base rate (He et al. 2014); null with one class only."""
    auc: float | None
    """Area under the ROC curve; null with one class only."""
    calibration: float | None
    """Sum of the predictions over the number of positives; null without positives."""


class DayMetrics:
    """Sums a day's predictions up; starts fresh for each day and arm. Every rank.

    The sums are exact whatever the number of ranks. AUC comes from counts of logits in bins of 2.4e-4, so that
    a day of any size takes 2 MiB; logits of one bin count as ties.
    """

    def __init__(self, device: torch.device) -> None:
        # Rows, positives, log loss, predictions.
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._counts = torch.zeros(2 * _NUM_BINS, dtype=torch.int64, device=device)

    def update(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Add a batch, each `[B]`; rows of weight 0 are padding. Returns the rows' losses `[B]`, 0 for padding."""
        losses = binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")
        rows = torch.stack([torch.ones_like(losses), labels.double(), losses, logits.double().sigmoid()])
        sums = rows @ weights.double()
        self._sums += sums
        # What is no number is found by its loss; here it must only not fall out of the bins.
        share = (logits.nan_to_num().clamp(-_LOGIT_RANGE, _LOGIT_RANGE) + _LOGIT_RANGE) / (2 * _LOGIT_RANGE)
        bins = (share * (_NUM_BINS - 1)).round().long() + labels.long() * _NUM_BINS
        self._counts.index_add_(0, bins, weights.long())
        return losses * weights.double()

    def compute(self) -> Metrics:
        """Return the metrics of what all ranks have added; all ranks together."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self._sums)
            dist.all_reduce(self._counts)
        rows, positives, loss_sum, prediction_sum = self._sums.tolist()
        base_rate = positives / rows
        log_loss = loss_sum / rows
        return Metrics(
            rows=int(rows),
            base_rate=base_rate,
            log_loss=log_loss,
            ne=normalized_entropy(log_loss, base_rate),
            auc=self._auc(),
            calibration=prediction_sum / positives if positives else None,
        )

    def _auc(self) -> float | None:
        negatives, positives = self._counts.view(2, _NUM_BINS).double()
        pairs = negatives.sum() * positives.sum()
        if pairs == 0:
            return None
        below = negatives.cumsum(0) - negatives
        return float((positives * (below + 0.5 * negatives)).sum() / pairs)


def normalized_entropy(log_loss: float, base_rate: float) -> float | None:
    """Log loss over the entropy of the base rate, both natural; null where the entropy is 0."""
    if not 0.0 < base_rate < 1.0:
        return None
    return log_loss / entropy(base_rate)


def entropy(base_rate: float) -> float:
    """Natural entropy of a base rate between 0 and 1: the log loss of predicting it for every row."""
    return -base_rate * math.log(base_rate) - (1.0 - base_rate) * math.log1p(-base_rate)
