"""Losses of next items, with the candidates that a step scores its targets against. Every rank."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raysparse.data.sequence_batch import Shortened
from raysparse.models.sasrec.config import (
    BCEConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    LossConfig,
    SampledSoftmaxConfig,
)
from raysparse.models.sasrec.full_softmax import Teacher, full_softmax, full_softmax_teacher
from raysparse.models.sasrec.losses import (
    bce,
    divergence,
    gbce,
    sampled_logits,
    sampled_softmax,
    sampled_softmax_teacher,
)
from raysparse.train.item_draws import ItemDraws


@dataclass(frozen=True)
class Prediction:
    """What a network has made of the targets of a batch; scores are products of these rows."""

    encoded: Tensor
    """`[P, W]`: what came before each target."""
    positives: Tensor
    """`[P, W]`: the targets' rows of the table."""
    candidates: Tensor
    """`[N, W]`: the candidates' rows."""


class ItemLoss:
    """A loss and its draws.

    Negatives that targets share are drawn from (seed, step), the same on all ranks; BCE's follow the rank.
    """

    def __init__(self, config: LossConfig, draws: ItemDraws) -> None:
        self._config = config
        self._draws = draws

    def candidates(self, targets: Tensor, num_steps: int) -> Tensor:
        """Return the items `[N]` that the targets `[P]` of a step are scored against."""
        match self._config:
            case FullSoftmaxConfig():
                return torch.arange(self._draws.num_items + 1, device=targets.device)
            case BCEConfig(num_negatives=count):
                own = torch.randint(1, self._draws.num_items + 1, (count * len(targets),))
                return own.to(targets.device)
            case GBCEConfig(num_negatives=count):
                return self._draws.draw("uniform", count, num_steps).to(targets.device)
            case SampledSoftmaxConfig(num_negatives=count, negatives=distribution):
                return self._draws.draw(distribution, count, num_steps).to(targets.device)

    def total(self, predicted: Prediction, targets: Tensor, candidates: Tensor) -> Tensor:
        """Return the sum of the losses of the targets `[P]`."""
        encoded, positives, rows = predicted.encoded, predicted.positives, predicted.candidates
        match self._config:
            case FullSoftmaxConfig():
                return full_softmax(encoded, rows, targets)
            case BCEConfig(num_negatives=count):
                own = candidates.view(len(targets), count)
                return bce(encoded, positives, targets, rows.view(*own.shape, encoded.shape[1]), own).sum()
            case GBCEConfig(t=t):
                return gbce(encoded, positives, targets, rows, candidates, self._draws.num_items, t).sum()
            case SampledSoftmaxConfig() as config:
                return sampled_softmax(self._sampled_logits(config, predicted, targets, candidates)).sum()

    def teacher(self, predicted: Prediction, targets: Tensor, candidates: Tensor) -> Teacher:
        """Return what a network makes of the targets of a step, for all others that are to follow it."""
        match self._config:
            case FullSoftmaxConfig():
                return full_softmax_teacher(predicted.encoded, predicted.candidates)
            case SampledSoftmaxConfig() as config:
                return sampled_softmax_teacher(self._sampled_logits(config, predicted, targets, candidates))
            case _:
                raise AssertionError(f"{self._config.kind} has no probabilities over candidates")

    def distilled(
        self, predicted: Prediction, teacher: Teacher, short: Shortened, candidates: Tensor, distillation: float
    ) -> Tensor:
        """Return the sum of the targets' losses and, with a weight, their divergences from a teacher's probabilities.

        The targets are those of `short`, which says where they stand among the teacher's.
        """
        targets, places = short.sequences.targets, short.targets
        match self._config:
            case FullSoftmaxConfig():
                rows = predicted.candidates
                return full_softmax(predicted.encoded, rows, targets, (teacher, places), distillation)
            case SampledSoftmaxConfig() as config:
                logits = self._sampled_logits(config, predicted, targets, candidates)
                return (sampled_softmax(logits) + distillation * divergence(logits, teacher(places))).sum()
            case _:
                raise AssertionError(f"{self._config.kind} has no probabilities over candidates")

    def _sampled_logits(
        self, config: SampledSoftmaxConfig, predicted: Prediction, targets: Tensor, candidates: Tensor
    ) -> Tensor:
        log_expected = None
        if config.log_q_correction:
            log_expected = self._draws.log_expected(config.negatives, candidates, config.num_negatives)
        return sampled_logits(
            predicted.encoded, predicted.positives, targets, predicted.candidates, candidates, log_expected
        )
