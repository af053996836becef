"""The sequences of a batch: each row's history and targets, one after the other, cut to what a model reads.

A row is one sequence, its last items or a drawn piece of it; or, on a stream of days, as many windows as its targets
need.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.batch import Batch
from raysparse.data.schema import HISTORY, TARGETS


@dataclass(frozen=True)
class SequenceBatch:
    """One rank's S sequences, jagged: T items, of which P are targets, each to be predicted from all before it."""

    items: Tensor
    """`[T]` int64: the items, sequence after sequence, oldest first."""
    lengths: Tensor
    """`[S]` int64: items of each sequence; 0 for padding."""
    input_places: Tensor
    """`[I]` int64: which of the items are inputs: all but the last of each sequence."""
    input_offsets: Tensor
    """`[S + 1]` int64: where each sequence's inputs begin, and where the last one's end."""
    target_places: Tensor
    """`[P]` int64: which of the items are targets."""
    target_inputs: Tensor
    """`[P]` int64: the input right before each target, as a place among the inputs."""
    target_rows: Tensor
    """`[P]` int64, ascending: the row of the batch that each target is of."""
    num_before: Tensor
    """`[P]` int64: items of its row that stand before each target, also those that were cut off."""

    @property
    def targets(self) -> Tensor:
        """The items to be predicted, `[P]`."""
        return self.items[self.target_places]


class LastSequences:
    """The sequences of the batch that was read last: all arms of a run get the same object."""

    def __init__(self, max_length: int, in_windows: bool = False) -> None:
        self._max_length = max_length
        self._in_windows = in_windows
        self._batch: Batch | None = None
        self._sequences: SequenceBatch | None = None
        self._no_items = torch.empty(0, dtype=torch.int64)

    def of(self, batch: Batch, shares: Tensor | None = None) -> SequenceBatch:
        """Return a batch's sequences; `shares` as for `sequences_of`."""
        sequences = self._sequences
        if sequences is None or self._batch is not batch:
            sequences = sequences_of(batch.ids, self._max_length, self._in_windows, shares)
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


@dataclass(frozen=True)
class _Pieces:
    """Pieces of rows, each a sequence, in the order of the rows."""

    rows: Tensor
    """`[S]` int64: the row of each."""
    starts: Tensor
    """`[S]` int64: the place in its row where each begins."""
    ends: Tensor
    first_targets: Tensor
    """`[S]` int64: the place in its row from which on the targets of each are its own, not those of a piece before."""


def sequences_of(
    ids: KeyedJaggedTensor, max_length: int, in_windows: bool = False, shares: Tensor | None = None
) -> SequenceBatch:
    """Join each row's history and targets, and keep its last `max_length + 1` items, the last of which is no input.

    A target is predicted where an item stands before it among those that are kept. `in_windows`, none is lost: a longer
    row becomes several sequences of as many items at most, in each of which the last half of them, and in one from the
    row's beginning all, can be targets. With `shares` `[B]`, each from 0 to 1 without it, a longer row is cut at that
    share of the places where a piece with targets may begin, not at the last one.
    """
    items, lengths, is_target = _join(ids)
    history_lengths = ids[HISTORY].lengths()
    if in_windows:
        pieces = _windows(lengths, history_lengths, max_length)
    elif shares is not None:
        pieces = _at_shares(lengths, history_lengths, max_length, shares)
    else:
        pieces = _ends(lengths, max_length)
    return _cut(items, lengths, is_target, pieces)[0]


def shorten(sequences: SequenceBatch, max_length: int) -> Shortened:
    """Keep the last `max_length + 1` items of each sequence, as `sequences_of` would have."""
    is_target = torch.zeros(len(sequences.items), dtype=torch.bool, device=sequences.items.device)
    is_target[sequences.target_places] = True
    lengths = sequences.lengths
    short, items = _cut(sequences.items, lengths, is_target, _ends(lengths, max_length))
    places = torch.searchsorted(sequences.target_places, items[short.target_places])
    of_rows = {"target_rows": sequences.target_rows[places], "num_before": sequences.num_before[places]}
    return Shortened(replace(short, **of_rows), items, places)


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
        num_before=sequences.num_before[kept],
    )


def _ends(lengths: Tensor, max_length: int) -> _Pieces:
    """The last items of each row."""
    starts = (lengths - max_length - 1).clamp(min=0)
    return _Pieces(torch.arange(lengths.numel(), device=lengths.device), starts, lengths, starts)


def _at_shares(lengths: Tensor, history_lengths: Tensor, max_length: int, shares: Tensor) -> _Pieces:
    """A piece of each row. Half a piece before the first place and behind the last one count as these two.

    Without that, the items at both ends of a row would be in few of its pieces; now the outermost are in half as many
    as those in the middle, those a piece further in in half as many more, and the mean is the same.
    """
    last = (lengths - max_length - 1).clamp(min=0)
    first = (history_lengths - max_length).clamp(min=0).minimum(last)
    half = max_length // 2
    places = (shares.to(lengths.device) * (last - first + 2 * half + 1)).long() - half
    starts = first + places.clamp(min=0).minimum(last - first)
    ends = (starts + max_length + 1).minimum(lengths)
    return _Pieces(torch.arange(lengths.numel(), device=lengths.device), starts, ends, starts)


def _windows(lengths: Tensor, history_lengths: Tensor, max_length: int) -> _Pieces:
    """A piece from the beginning of each row where it has targets, and behind it one for every half as many targets."""
    longest, step = max_length + 1, (max_length + 1) // 2
    beginnings = ((history_lengths < longest) | (lengths <= longest)).long()
    behind = history_lengths.clamp(min=longest)
    counts = beginnings + (lengths - behind).clamp(min=0).add(step - 1) // step
    rows, numbers = _rows_and_places(counts)
    first_targets = behind[rows] + (numbers - beginnings[rows]) * step
    is_beginning = numbers < beginnings[rows]
    ends = torch.where(is_beginning, longest, first_targets + step).minimum(lengths[rows])
    starts = (ends - longest).clamp(min=0)
    return _Pieces(rows, starts, ends, torch.where(is_beginning, 0, first_targets))


def _cut(items: Tensor, lengths: Tensor, is_target: Tensor, pieces: _Pieces) -> tuple[SequenceBatch, Tensor]:
    """Keep the pieces of the rows, which have `lengths`; and the places of their items among all."""
    kept_lengths = pieces.ends - pieces.starts
    of, places = _rows_and_places(kept_lengths)
    in_row = pieces.starts[of] + places
    kept = _offsets(lengths)[pieces.rows][of] + in_row
    is_input = places < kept_lengths[of] - 1
    is_own = is_target[kept] & (places > 0) & (in_row >= pieces.first_targets[of])
    target_places = is_own.nonzero().squeeze(1)
    batch = SequenceBatch(
        items=items[kept],
        lengths=kept_lengths,
        input_places=is_input.nonzero().squeeze(1),
        input_offsets=_offsets((kept_lengths - 1).clamp(min=0)),
        target_places=target_places,
        target_inputs=is_input.cumsum(0)[target_places - 1] - 1,
        target_rows=pieces.rows[of][target_places],
        num_before=in_row[target_places],
    )
    return batch, kept


def items_before(ids: KeyedJaggedTensor, sequences: SequenceBatch, part: slice) -> tuple[Tensor, Tensor]:
    """Return all items that stand before each target of a part of them, also those that were cut off.

    Items `[S]`, target after target, and the target `[S]` of each, as a place in the part.
    """
    items, lengths, _ = _join(ids)
    of, places = _rows_and_places(sequences.num_before[part])
    return items[_offsets(lengths)[sequences.target_rows[part]][of] + places], of


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
