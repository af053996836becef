"""Each user's items in order of time, and rows of a data set cut from them.

A row is three places in the items of all users: where its history starts, where its targets start, and where they end.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raysparse.data.arrow import compute as pc
from raysparse.data.dataset import ITEM_NAMES, Day, PartFile, write_part
from raysparse.data.hashing import fnv1a_64, mix_64
from raysparse.data.schema import sequence_schema
from raysparse.data.sequences.events import Events

ROWS_PER_FILE = 2**20
"""Rows of a part file at most: 16 row groups."""
_ITEMS_PER_FILE = 2**26
"""Items in the rows of a part file at most: with their places some 800 MB while they are written."""

Items = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """The items of all users, one user after the other, each in order of time."""

    items: Items
    """Rows of the items' table, from 1 on, `[events]`."""
    times: Places
    """Microseconds since 1970, or places in the input where there are no times, `[events]`."""
    offsets: Places
    """Where each user starts in `items`, and the end of the last, `[users + 1]`."""
    num_items: int
    """Items of the table, without the row of none."""

    @property
    def num_users(self) -> int:
        """Users with at least an event."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Rows:
    """Rows of a part of the data set, as places in the items of all users; all are `[rows]`."""

    history_starts: Places
    target_starts: Places
    """Where the targets start, and the history ends."""
    ends: Places

    def __len__(self) -> int:
        return len(self.ends)

    def take(self, chosen: npt.NDArray[np.bool_ | np.integer] | slice) -> "Rows":
        """Return the rows of a mask, of places or of a range."""
        return Rows(self.history_starts[chosen], self.target_starts[chosen], self.ends[chosen])


def histories_of(events: Events) -> tuple[Histories, pa.Array]:
    """Cut events in order into users (driver), and return the items' names, `[items]`, in the order of their rows."""
    names, row_of = number_items(events)
    starts = np.flatnonzero(np.diff(events.users, prepend=-1))
    offsets = np.append(starts, len(events)).astype(np.int64)
    return Histories(row_of[events.items], events.times, offsets, len(names)), names


def number_items(events: Events) -> tuple[pa.Array, Items]:
    """Number the items that have events (driver): their names `[items]` in the order of rows, and each code's row.

    Rows are in the order of a hash of the name. It knows nothing of popularity or of the order of the input, so that
    popular items are spread over the ranges of rows into which a table is cut.
    """
    used = np.flatnonzero(np.bincount(events.items, minlength=len(events.item_names)))
    names = events.item_names.take(pa.array(used))
    hashed = pa.table({"hash": mix_64(fnv1a_64(names)), "name": names})
    order = pc.sort_indices(hashed, sort_keys=[("hash", "ascending"), ("name", "ascending")]).to_numpy()
    row_of = np.zeros(len(events.item_names), np.int32)
    row_of[used[order]] = np.arange(1, len(used) + 1, dtype=np.int32)
    return names.take(pa.array(order)), row_of


def write_rows(path: str, day: str, histories: Histories, rows: Rows) -> Day:
    """Write the rows of a part of the data set, a day or another, in part files (driver)."""
    files = [write_file(path, day, number, histories, piece) for number, piece in enumerate(_cut(rows))]
    return Day(day=day, files=tuple(files))


def write_file(path: str, day: str, number: int, histories: Histories, rows: Rows) -> PartFile:
    """Write rows as one part file (any process)."""
    return write_part(path, day, number, rows_table(histories, rows))


def rows_table(histories: Histories, rows: Rows) -> pa.Table:
    """Give rows their items: the columns of `sequence_schema`."""
    labels = pa.array(np.ones(len(rows), np.int8))
    history = _lists(histories.items, rows.history_starts, rows.target_starts)
    targets = _lists(histories.items, rows.target_starts, rows.ends)
    return pa.Table.from_arrays([labels, history, targets], schema=sequence_schema(histories.num_items).arrow())


def write_items(path: str, names: pa.Array, counts: npt.NDArray[np.int64]) -> None:
    """Write the names and counts of the items, `[items]`, in the order of their rows from 1 on (driver)."""
    table = pa.table({"item": names.cast(pa.string()), "count": pa.array(counts, pa.int64())})
    filesystem, root = fsspec.core.url_to_fs(path)
    with filesystem.open(posixpath.join(root, ITEM_NAMES), "wb") as file:
        pq.write_table(table, file)


def _cut(rows: Rows) -> Iterator[Rows]:
    items_up_to = np.cumsum(rows.ends - rows.history_starts)
    start = 0
    while start < len(rows):
        before = items_up_to[start - 1] if start else 0
        end = int(np.searchsorted(items_up_to, before + _ITEMS_PER_FILE, side="right"))
        end = min(max(end, start + 1), start + ROWS_PER_FILE)
        yield rows.take(slice(start, end))
        start = end


def _lists(items: Items, starts: Places, ends: Places) -> pa.ListArray:
    lengths = ends - starts
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    list_type = pa.list_(pa.field("element", pa.int32(), nullable=False))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items[places]), type=list_type)
