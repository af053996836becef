"""The order in which a day's rows are read: a function of (seed, day), not of the number of workers.

A day's row groups are permuted and cut into windows of about `shuffle_rows` rows. In a window of N rows,
J = ceil(N / batch_size) batches are formed: the rows, in file order, are cut into blocks of J, and a random
permutation of each block gives one of its rows to every batch. So

- a batch is a sample spread evenly over the window, the same one whatever the number of workers;
- a rank that owns a contiguous share of the blocks holds the same share of every batch, and reads that
  share of the window's row groups and no more;
- a window leaves no small last batch: its batches differ by at most one row.

The place in the stream is therefore two numbers, the day and the batch in it.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysparse.data.dataset import Day


@dataclass(frozen=True)
class RowGroup:
    """A row group of one of a day's files."""

    path: str
    index: int
    rows: int


@dataclass(frozen=True)
class Window:
    """Row groups that are shuffled together, and the batches that are made of them."""

    row_groups: tuple[RowGroup, ...]
    first_batch: int
    """Number in the day of the window's first batch."""
    num_rows: int
    num_batches: int
    num_blocks: int
    """Blocks of `num_batches` consecutive rows; the last may be shorter."""


@dataclass(frozen=True)
class Share:
    """The part of a window that one rank reads."""

    start: int
    """First row, counted over the window's row groups one after the other."""
    stop: int
    rows_of_batch: tuple[NDArray[np.int64], ...]
    """Per batch of the window, the rank's rows of it, counted from `start`."""
    padded_rows: int
    """Rows of every rank's share of a batch, padding included."""


def windows_of(day: Day, seed: int, batch_size: int, shuffle_rows: int) -> tuple[Window, ...]:
    """Lay out a day: every row group stands in one window, every row in one batch."""
    groups = [
        RowGroup(file.path, index, rows) for file in day.files for index, rows in enumerate(file.row_groups) if rows
    ]
    order = _random_keys((seed, day.day, "row groups"), len(groups)).argsort(kind="stable")
    num_windows = max(1, round(day.rows / shuffle_rows))
    members: list[list[RowGroup]] = [[] for _ in range(num_windows)]
    rows_before = 0
    for position in order:
        group = groups[position]
        members[min(num_windows - 1, rows_before * num_windows // max(1, day.rows))].append(group)
        rows_before += group.rows
    windows: list[Window] = []
    first_batch = 0
    for groups_of_window in filter(None, members):
        num_rows = sum(group.rows for group in groups_of_window)
        num_batches = math.ceil(num_rows / batch_size)
        num_blocks = math.ceil(num_rows / num_batches)
        windows.append(Window(tuple(groups_of_window), first_batch, num_rows, num_batches, num_blocks))
        first_batch += num_batches
    return tuple(windows)


def rows_in_batch(window: Window, seed: int, day: str) -> NDArray[np.int64]:
    """Rows of each batch of a window on all ranks together, `[num_batches]`."""
    short = window.num_rows - (window.num_blocks - 1) * window.num_batches
    last_block = _permutations(window, seed, day, window.num_blocks - 1, window.num_blocks)[0]
    return window.num_blocks - 1 + (last_block < short).astype(np.int64)


def share_of(window: Window, seed: int, day: str, rank: int, world_size: int) -> Share:
    """The rows of a window that one rank reads, and how they fall into batches."""
    first = rank * window.num_blocks // world_size
    last = (rank + 1) * window.num_blocks // world_size
    start = first * window.num_batches
    stop = min(last * window.num_batches, window.num_rows)
    # [blocks, batches]: where in its block the row of each batch stands.
    offsets = _permutations(window, seed, day, first, last)
    rows = np.arange(last - first)[:, None] * window.num_batches + offsets
    per_batch = np.ascontiguousarray(rows.T)
    num_read = max(0, stop - start)
    rows_of_batch = tuple(batch[batch < num_read] for batch in per_batch)
    return Share(start, max(start, stop), rows_of_batch, math.ceil(window.num_blocks / world_size))


def _permutations(window: Window, seed: int, day: str, first: int, last: int) -> NDArray[np.int64]:
    keys = _random_keys((seed, day, window.first_batch), window.num_blocks * window.num_batches)
    blocks = keys.reshape(window.num_blocks, window.num_batches)[first:last]
    return blocks.argsort(axis=1, kind="stable")


def _random_keys(seed: tuple[int | str, ...], count: int) -> NDArray[np.uint64]:
    # Raw Philox output is fixed for ever; numpy may change what Generator.permutation makes of it.
    entropy = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in seed]
    return np.random.Philox(np.random.SeedSequence(entropy)).random_raw(count)
