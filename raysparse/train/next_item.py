"""The task of sequences: which item comes next."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import LastSequences, SequenceBatch, sequences_of, shorten, split_last_targets
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.supernet import SASRecSupernet, SASRecSupernetConfig
from raysparse.sharding.child import SequenceChild
from raysparse.sharding.sequence_model import ShardedSequenceModel
from raysparse.train.arm import Arm
from raysparse.train.item_draws import ItemDraws
from raysparse.train.item_loss import ItemLoss, Prediction
from raysparse.train.ranking import RankingConfig, RankingMetrics

Cut = Literal["last", "drawn", "windows"]
"""Of a row that is longer than a model reads: its last items, a piece that is drawn for each step, or several
sequences, so that no target is lost."""

SequenceModel = ShardedSequenceModel | SequenceChild
"""Models that encode what came before each target."""


class NextItemTask:
    """The model's loss, and the ranks of what came next. Every rank.

    A row's loss is the sum over its targets, so that each target weighs the same whatever the number of workers.
    """

    def __init__(self, model: SASRecConfig, ranking: RankingConfig, draws: ItemDraws, cut: Cut = "last") -> None:
        """`cut` says what is learned of a row that is longer than the model reads."""
        self._loss = ItemLoss(model.loss, draws)
        self._ranking = ranking
        self._draws = draws
        self._cut: Cut = cut
        self._learned = LastSequences(model.max_length, cut == "windows")
        self._scored = LastSequences(model.max_length, cut == "windows")
        self._candidates = torch.empty(0)
        self._batch: Batch | None = None

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Predict this rank's targets and return the sum of their losses; all ranks together.

        All arms of a step have the same candidates.
        """
        sequences = self._learned.of(batch, self._draws.shares(batch.ids, num_steps) if self._cut == "drawn" else None)
        model = cast(SequenceModel, arm.model)
        model.head.train()
        targets = sequences.targets
        if self._batch is not batch:
            self._batch, self._candidates = batch, self._loss.candidates(targets, num_steps)
        predicted = Prediction(*model.encode(sequences, self._candidates))
        loss = self._loss.total(predicted, targets, self._candidates)
        return loss + _no_gradients(model.head, sequences)

    def metrics(self) -> RankingMetrics:
        """Return metrics without predictions."""
        return RankingMetrics(self._ranking, self._scored, self._draws)


class ElasticTask:
    """The losses of the largest network, and of those that a step trains beside it and that learn from it. Every rank.

    The table is looked up once for all of them. What the largest one predicts of a step's candidates is what the others
    are to predict as well (Yu and Huang 2019, arXiv 1903.05134, section 3.2).
    """

    def __init__(
        self, model: SASRecSupernetConfig, ranking: RankingConfig, draws: ItemDraws, cut: Cut = "last"
    ) -> None:
        """`cut` says what is learned of a row that is longer than the largest network reads."""
        self._model = model
        self._cut: Cut = cut
        self._loss = ItemLoss(model.loss, draws)
        self._ranking = ranking
        self._draws = draws

    def loss_sum(self, arm: Arm, batch: Batch, num_steps: int) -> Tensor:
        """Return the sum of the losses of all networks of the step; all ranks together."""
        shares = self._draws.shares(batch.ids, num_steps) if self._cut == "drawn" else None
        sequences = sequences_of(batch.ids, self._model.max_length, self._cut == "windows", shares)
        if self._model.hold_out_last:
            sequences, _ = split_last_targets(sequences)
        model = cast(ShardedSequenceModel, arm.model)
        supernet = cast(SASRecSupernet, model.head)
        supernet.train()
        candidates = self._loss.candidates(sequences.targets, num_steps)
        rows = model.look_up(sequences, candidates)
        largest, *others = supernet.choices
        predicted = predict(supernet, largest, sequences, *rows)
        loss = self._loss.total(predicted, sequences.targets, candidates) + _no_gradients(supernet, sequences)
        if not others:
            return loss
        teacher = self._loss.teacher(predicted, sequences.targets, candidates)
        for choice in others:
            short = shorten(sequences, choice.max_length)
            predicted = predict(supernet, choice, short.sequences, rows[0][short.items], rows[1])
            loss = loss + self._loss.distilled(predicted, teacher, short, candidates, self._model.distillation)
        return loss

    def metrics(self) -> RankingMetrics:
        """Return metrics without predictions; they are the largest network's."""
        sequences = LastSequences(self._model.max_length, self._cut == "windows")
        return RankingMetrics(self._ranking, sequences, self._draws)


def predict(
    supernet: SASRecSupernet, choice: SASRecConfig, sequences: SequenceBatch, rows: Tensor, candidates: Tensor
) -> Prediction:
    """Predict with a network of a supernet, which reads the first channels of the rows of a wider table.

    `rows` `[T, D]` of the sequences' items, `candidates` `[N, D]`.
    """
    width = choice.embedding_dim
    rows = rows[:, :width]
    inputs, offsets = rows[sequences.input_places], sequences.input_offsets
    encoded = supernet.encode(choice, inputs, offsets, sequences.target_inputs)
    return Prediction(encoded, rows[sequences.target_places], candidates[:, :width])


def _no_gradients(head: nn.Module, sequences: SequenceBatch) -> Tensor | float:
    """Ranks exchange all gradients: one whose rows are all padding gives zeros, not none."""
    if len(sequences.input_places):
        return 0.0
    return sum((0.0 * parameter.sum() for parameter in head.parameters()), torch.zeros(()))
