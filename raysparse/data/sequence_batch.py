"""The sequences of a batch: each row's history and targets, one after the other, cut to what a model reads."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

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


def sequences_of(ids: KeyedJaggedTensor, max_length: int) -> SequenceBatch:
    """Join each row's history and targets, and keep its last `max_length + 1` items, the last of which is no input.

    A target is predicted where an item stands before it among those that are kept.
    """
    items, lengths, is_target = _join(ids)
    rows, places = _rows_and_places(lengths)
    kept_lengths = lengths.clamp(max=max_length + 1)
    kept = places >= (lengths - kept_lengths)[rows]
    items, is_target, rows = items[kept], is_target[kept], rows[kept]
    places = places[kept] - (lengths - kept_lengths)[rows]
    is_input = places < kept_lengths[rows] - 1
    target_places = (is_target & (places > 0)).nonzero().squeeze(1)
    return SequenceBatch(
        items=items,
        lengths=kept_lengths,
        input_places=is_input.nonzero().squeeze(1),
        input_offsets=_offsets((kept_lengths - 1).clamp(min=0)),
        target_places=target_places,
        target_inputs=is_input.cumsum(0)[target_places - 1] - 1,
        target_rows=rows[target_places],
    )


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
