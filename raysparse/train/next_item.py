"""The task of sequences: which item comes next."""

from typing import cast

import torch
from torch import Tensor

from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import SequenceBatch, sequences_of
from raysparse.models.sasrec.config import (
    BCEConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    SampledSoftmaxConfig,
    SASRecConfig,
)
from raysparse.models.sasrec.losses import bce, full_softmax, gbce, sampled_softmax
from raysparse.sharding.sequence_model import ShardedSequenceModel
from raysparse.train.arm import Arm
from raysparse.train.item_draws import ItemDraws
from raysparse.train.ranking import RankingConfig, RankingMetrics


class NextItemTask:
    """The model's loss, and the ranks of what came next. Every rank.

    A row's loss is the sum over its targets, so that each target weighs the same whatever the number of workers.
    """

    def __init__(self, model: SASRecConfig, ranking: RankingConfig, draws: ItemDraws) -> None:
        self._model = model
        self._ranking = ranking
        self._draws = draws

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Predict this rank's targets and return the sum of their losses; all ranks together.

        Negatives that targets share are drawn from (seed, step), the same on all ranks; BCE's follow the rank.
        """
        sequences = sequences_of(batch.ids, self._model.max_length)
        model = cast(ShardedSequenceModel, arm.model)
        model.head.train()
        loss = self._losses(model, sequences, num_steps).sum()
        if not len(sequences.input_places):
            # Ranks exchange all gradients: one whose rows are all padding gives zeros, not none.
            loss = loss + sum(0.0 * parameter.sum() for parameter in model.head.parameters())
        return loss

    def metrics(self) -> RankingMetrics:
        """Return metrics without predictions."""
        return RankingMetrics(self._ranking, self._model.max_length, self._draws)

    def _losses(self, model: ShardedSequenceModel, sequences: SequenceBatch, num_steps: int) -> Tensor:
        targets = sequences.targets
        loss = self._model.loss
        match loss:
            case FullSoftmaxConfig():
                every = torch.arange(self._draws.num_items + 1, device=targets.device)
                encoded, _, items = model.encode(sequences, every)
                return full_softmax(encoded, items, targets)
            case BCEConfig():
                count = loss.num_negatives * len(targets)
                own = torch.randint(1, self._draws.num_items + 1, (count,)).to(targets.device)
                encoded, positives, rows = model.encode(sequences, own)
                return bce(encoded, positives, rows.view(len(targets), loss.num_negatives, encoded.shape[1]))
            case GBCEConfig():
                negatives = self._draws.draw("uniform", loss.num_negatives, num_steps).to(targets.device)
                encoded, positives, rows = model.encode(sequences, negatives)
                return gbce(encoded, positives, targets, rows, negatives, self._draws.num_items, loss.t)
            case SampledSoftmaxConfig():
                negatives = self._draws.draw(loss.negatives, loss.num_negatives, num_steps).to(targets.device)
                encoded, positives, rows = model.encode(sequences, negatives)
                log_expected = None
                if loss.log_q_correction:
                    log_expected = (
                        self._draws.log_expected(loss.negatives, targets, loss.num_negatives),
                        self._draws.log_expected(loss.negatives, negatives, loss.num_negatives),
                    )
                return sampled_softmax(encoded, positives, targets, rows, negatives, log_expected)
