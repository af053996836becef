"""The sequences of a batch: each row's history and targets, one after the other, cut to what a model reads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.batch import Batch
from raysparse.data.schema import HISTORY, TARGETS


@dataclass(frozen=True)
class SequenceBatch:
    """One rank's sequences, jagged: T items, of which P are targets, each to be predicted from all before it."""

    items: Tensor
    """`[T]` int64: the items, sequence after sequence, oldest first."""
    lengths: Tensor
    """`[B]` int64: items of each sequence; 0 for padding."""
    input_places: Tensor
    """`[I]` int64: which of the items are inputs: all but the last of each sequence."""
    input_offsets: Tensor
    """`[B + 1]` int64: where each sequence's inputs begin, and where the last one's end."""
    target_places: Tensor
    """`[P]` int64: which of the items are targets."""
    target_inputs: Tensor
    """`[P]` int64: the input right before each target, as a place among the inputs."""
    target_rows: Tensor
    """`[P]` int64: the row of each target."""

    @property
    def targets(self) -> Tensor:
        """The items to be predicted, `[P]`."""
        return self.items[self.target_places]


class LastSequences:
    """The sequences of the batch that was read last: all arms of a run get the same object."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._batch: Batch | None = None
        self._sequences: SequenceBatch | None = None
        self._no_items = torch.empty(0, dtype=torch.int64)

    def of(self, batch: Batch) -> SequenceBatch:
        """Return a batch's sequences."""
        sequences = self._sequences
        if sequences is None or self._batch is not batch:
            sequences = sequences_of(batch.ids, self._max_length)
            self._batch, self._sequences, self._no_items = batch, sequences, sequences.items[:0]
        return sequences

    @property
    def no_items(self) -> Tensor:
        """No candidates, `[0]`, for the batch that was read last."""
        return self._no_items


@dataclass(frozen=True)
class Shortened:
    """The ends of the sequences of a batch."""

    sequences: SequenceBatch
    items: Tensor
    """`[T']` int64: their items, as places among those of the longer ones."""
    targets: Tensor
    """`[P']` int64: their targets, as places among those of the longer ones."""


def sequences_of(ids: KeyedJaggedTensor, max_length: int) -> SequenceBatch:
    """Join each row's history and targets, and keep its last `max_length + 1` items, the last of which is no input.

    A target is predicted where an item stands before it among those that are kept.
    """
    return _cut(*_join(ids), max_length)[0]


def shorten(sequences: SequenceBatch, max_length: int) -> Shortened:
    """Keep the last `max_length + 1` items of each sequence, as `sequences_of` would have."""
    is_target = torch.zeros(len(sequences.items), dtype=torch.bool, device=sequences.items.device)
    is_target[sequences.target_places] = True
    short, items = _cut(sequences.items, sequences.lengths, is_target, max_length)
    places = torch.searchsorted(sequences.target_places, items[short.target_places])
    return Shortened(short, items, places)


def split_last_targets(sequences: SequenceBatch) -> tuple[SequenceBatch, SequenceBatch]:
    """Return the sequences with all targets but the last of each row, and with the last ones alone."""
    rows = sequences.target_rows
    is_last = torch.ones_like(rows, dtype=torch.bool)
    is_last[:-1] = rows[1:] != rows[:-1]
    return _with_targets(sequences, ~is_last), _with_targets(sequences, is_last)


def _with_targets(sequences: SequenceBatch, kept: Tensor) -> SequenceBatch:
    return replace(
        sequences,
        target_places=sequences.target_places[kept],
        target_inputs=sequences.target_inputs[kept],
        target_rows=sequences.target_rows[kept],
    )


def _cut(items: Tensor, lengths: Tensor, is_target: Tensor, max_length: int) -> tuple[SequenceBatch, Tensor]:
    """Keep the last items of each sequence; and their places among all."""
    rows, places = _rows_and_places(lengths)
    kept_lengths = lengths.clamp(max=max_length + 1)
    dropped = (lengths - kept_lengths)[rows]
    kept = (places >= dropped).nonzero().squeeze(1)
    items, is_target, rows, places = items[kept], is_target[kept], rows[kept], (places - dropped)[kept]
    is_input = places < kept_lengths[rows] - 1
    target_places = (is_target & (places > 0)).nonzero().squeeze(1)
    batch = SequenceBatch(
        items=items,
        lengths=kept_lengths,
        input_places=is_input.nonzero().squeeze(1),
        input_offsets=_offsets((kept_lengths - 1).clamp(min=0)),
        target_places=target_places,
        target_inputs=is_input.cumsum(0)[target_places - 1] - 1,
        target_rows=rows[target_places],
    )
    return batch, kept


def items_before(ids: KeyedJaggedTensor, sequences: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Return all items that stand before each target, also those that were cut off.

    Items `[S]`, target after target, and the target `[S]` of each, as a place among the targets of `sequences`.
    """
    items, lengths, _ = _join(ids)
    first, last = _offsets(lengths)[:-1], _offsets(lengths)[1:]
    behind = _offsets(sequences.lengths)[1:][sequences.target_rows] - sequences.target_places
    counts = (last - first)[sequences.target_rows] - behind
    of, places = _rows_and_places(counts)
    return items[first[sequences.target_rows][of] + places], of


def _join(ids: KeyedJaggedTensor) -> tuple[Tensor, Tensor, Tensor]:
    """All items, row after row; how many each row has; which of the items are targets."""
    history, targets = ids[HISTORY], ids[TARGETS]
    lengths = history.lengths() + targets.lengths()
    rows, places = _rows_and_places(lengths)
    is_target = places >= history.lengths()[rows]
    items = torch.empty(rows.shape, dtype=torch.int64, device=rows.device)
    items[~is_target] = history.values()
    items[is_target] = targets.values()
    return items, lengths, is_target


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _rows_and_places(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The row of each item, and its place in the row."""
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)
    return rows, torch.arange(rows.numel(), device=rows.device) - _offsets(lengths)[rows]
