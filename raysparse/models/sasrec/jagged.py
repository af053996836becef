"""Sequences without padding: `values [T, ...]`, one after the other, and `offsets [B + 1]` where each begins."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_PLACES_PER_BUCKET = 512
"""Padding included; a bucket of fewer costs more in calls than it saves. For 256 sequences of 7 to 9 items in the mean,
for 64 of 100 and for 64 of very different lengths a step on a CPU (medians of 40) is as long from 128 to 512, within 6
percent, and up to 8 percent longer at 1,024 and 19 at 2,048."""


@dataclass(frozen=True)
class Bucket:
    """Sequences of like length."""

    places: Tensor
    """`[N, L]` int64: where each item stands among the values; padding points at the sequence's first item."""
    kept: Tensor
    """`[N, L]`: whether a place is an item, not padding."""


@dataclass(frozen=True)
class Wanted:
    """Some of the items, whose results alone are asked for."""

    places: Tensor
    """`[P]` int64, ascending: where they stand among the values."""
    are_ends: bool
    """Whether they are the last items of all sequences that have any."""

    @classmethod
    def of(cls, places: Tensor, offsets: Tensor) -> "Wanted":
        """Look where places stand in their sequences."""
        return cls(places, torch.equal(places, offsets[1:][lengths_of(offsets) > 0] - 1))


def lengths_of(offsets: Tensor) -> Tensor:
    """Return how many items each sequence has, `[B]`."""
    return offsets[1:] - offsets[:-1]


def rows_of(offsets: Tensor) -> Tensor:
    """Return the sequence of each item, `[T]`."""
    lengths = lengths_of(offsets)
    return torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths)


def places_of(offsets: Tensor) -> Tensor:
    """Return the place of each item in its sequence, from 0, `[T]`."""
    rows = rows_of(offsets)
    return torch.arange(len(rows), device=offsets.device) - offsets[rows]


def buckets_of(offsets: Tensor) -> list[Bucket]:
    """Sort the sequences that have items into buckets of lengths within a factor of the square root of two.

    A bucket of few places, padding included, may have others.
    """
    lengths = lengths_of(offsets)
    order = torch.argsort(lengths, stable=True)
    order = order[lengths[order] > 0]
    buckets: list[Bucket] = []
    start = 0
    sizes = lengths[order].tolist()
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and (
            (stop + 1 - start) * sizes[stop] <= _PLACES_PER_BUCKET or sizes[stop] ** 2 <= 2 * sizes[start] ** 2
        ):
            stop += 1
        buckets.append(_bucket(offsets, order[start:stop], sizes[stop - 1]))
        start = stop
    return buckets


def by_bucket(buckets: list[Bucket], values: Tensor, function: Callable[[Tensor, Bucket], Tensor]) -> Tensor:
    """Apply a function to padded buckets `[N, L, ...]`, one at least, and put its results back, `[T, ...]`."""
    results = [
        (bucket, function(padded, bucket)) for bucket, padded in zip(buckets, _padded(buckets, values), strict=True)
    ]
    joined = torch.cat([result[bucket.kept] for bucket, result in results])
    places = torch.cat([bucket.places[bucket.kept] for bucket, _ in results])
    return torch.empty_like(joined).index_copy(0, places, joined)


def by_sequence(
    buckets: list[Bucket], ends: Tensor, values: Tensor, function: Callable[[Tensor, Tensor, Bucket], Tensor]
) -> Tensor:
    """Apply a function to what there is of each sequence's end, `[S, ...]`, with its padded items `[N, L, ...]`.

    The S sequences are those that have items, one bucket of them at least; the results are `[S, ...]`.
    """
    # Sequences follow each other in the order of their first items.
    order = torch.cat([bucket.places[:, 0] for bucket in buckets]).argsort()
    pieces = ends[order.argsort()].split([len(bucket.places) for bucket in buckets])
    results = [function(*of_bucket) for of_bucket in zip(pieces, _padded(buckets, values), buckets, strict=True)]
    return torch.cat(results)[order]


def _padded(buckets: list[Bucket], values: Tensor) -> list[Tensor]:
    """The values of each bucket, `[N, L, ...]`."""
    # In one piece: on the way back each piece would bring a gradient as large as the values.
    places = torch.cat([bucket.places.flatten() for bucket in buckets])
    pieces = values.flatten(1).index_select(0, places).split([bucket.places.numel() for bucket in buckets])
    return [piece.view(*bucket.places.shape, *values.shape[1:]) for bucket, piece in zip(buckets, pieces, strict=True)]


def _bucket(offsets: Tensor, rows: Tensor, longest: int) -> Bucket:
    starts, lengths = offsets[rows], lengths_of(offsets)[rows]
    steps = torch.arange(longest, device=offsets.device)
    kept = steps < lengths.unsqueeze(1)
    return Bucket(starts.unsqueeze(1) + torch.where(kept, steps, 0), kept)
