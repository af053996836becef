"""Losses of an elastic encoder on a training part: each row's last target chooses, the others are learned.

Or all do both, as in EASRec.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import SequenceBatch, sequences_of, split_last_targets
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.relaxed import Weights, encode_relaxed
from raysparse.models.sasrec.supernet import SASRecSupernet
from raysparse.train.item_draws import ItemDraws
from raysparse.train.item_loss import ItemLoss, Prediction
from raysparse.train.next_item import predict


class HeldOutLosses:
    """Reads a batch per step, on one process that holds encoder and table whole. The table stays as it is."""

    def __init__(
        self,
        supernet: SASRecSupernet,
        items: Tensor,
        draws: ItemDraws,
        read: Callable[[], Iterator[Batch]],
        learning_rate: float,
        hold_out: bool = True,
    ) -> None:
        """`items` `[M + 1, D]`; `read` yields batches of the training part without end. The encoder is copied.

        Without `hold_out` all targets choose, and all are learned.
        """
        self._supernet = copy.deepcopy(supernet).requires_grad_(True).train()
        self._space = supernet.config.space
        self._items = items
        self._loss = ItemLoss(supernet.config.loss, draws)
        self._optimizer = torch.optim.Adam(self._supernet.parameters(), lr=learning_rate) if learning_rate else None
        self._hold_out = hold_out
        self._batches = read()
        self._step = -1
        self._learned, self._held_out = self._next()

    def choice_loss(self, weights: Weights, step: int) -> Tensor:
        """Return the mean loss of the targets of a step's batch that choose, with a gradient for the weights."""
        return self._mean_loss(weights, self._at(step)[1], step)

    def weight_step(self, learner: SASRecConfig | Weights, step: int) -> None:
        """Have the encoder learn from the targets of a step's batch that are learned, as one network or a mixture."""
        sequences = self._at(step)[0]
        if self._optimizer is None or not len(sequences.targets):
            return
        self._optimizer.zero_grad()
        self._mean_loss(learner, sequences, step).backward()
        self._optimizer.step()

    def _mean_loss(self, learner: SASRecConfig | Weights, sequences: SequenceBatch, step: int) -> Tensor:
        targets = sequences.targets
        candidates = self._loss.candidates(targets, step)
        rows, of_candidates = self._items[sequences.items], self._items[candidates]
        if isinstance(learner, SASRecConfig):
            predicted = predict(self._supernet, learner, sequences, rows, of_candidates)
        else:
            inputs, offsets = rows[sequences.input_places], sequences.input_offsets
            encoded = encode_relaxed(self._supernet.network, self._space, learner, inputs, offsets)
            # Beyond its width an encoding is 0, so that whole rows give the scores of the first columns.
            predicted = Prediction(encoded[sequences.target_inputs], rows[sequences.target_places], of_candidates)
        return self._loss.total(predicted, targets, candidates) / len(targets)

    def _at(self, step: int) -> tuple[SequenceBatch, SequenceBatch]:
        """The batch of a step, both parts of it; steps only go forward."""
        if step != self._step:
            if self._step >= 0:
                self._learned, self._held_out = self._next()
            self._step = step
        return self._learned, self._held_out

    def _next(self) -> tuple[SequenceBatch, SequenceBatch]:
        batch = next(self._batches).to(self._items.device)
        sequences = sequences_of(batch.ids, max(self._space.lengths))
        return split_last_targets(sequences) if self._hold_out else (sequences, sequences)
