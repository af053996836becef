"""The day stream: from a day's Parquet files to batches, on one rank, ahead of the model."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.config import Config
from raysparse.data.batch import Batch
from raysparse.data.dataset import Dataset, Day
from raysparse.data.order import Share, Window, rows_in_batch, share_of, windows_of
from raysparse.data.schema import LABEL, Schema
from raysparse.errors import DataError

PREFETCHED_BATCHES = 4
"""Batches that stand ready; more would only hold memory, since a window's rows are read in one go."""


class StreamConfig(Config):
    """How a day's rows are grouped into batches."""

    batch_size: int = Field(default=4096, ge=1)
    """Rows of a step, over all workers together; a day's batches hold at most so many, in equal parts."""
    shuffle_rows: int = Field(default=262_144, ge=1)
    """Rows that are shuffled together; a day of fewer rows is shuffled as a whole."""


class DayStream:
    """Reads one rank's share of a data set's days. Runs on every rank, without talking to the others."""

    def __init__(self, dataset: Dataset, config: StreamConfig, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._config = config
        self._kept: dict[tuple[str, int], _Columns] = {}

    def num_batches(self, day: Day) -> int:
        """Batches of a day, the same on every rank."""
        return sum(window.num_batches for window in self._windows(day))

    def batches(self, day: Day, start: int = 0) -> Iterator[Batch]:
        """Yield the day's batches from number `start` on, read ahead by a thread; DataError names a file."""
        return _read_ahead(self._read(day, start), PREFETCHED_BATCHES)

    def _windows(self, day: Day) -> tuple[Window, ...]:
        return windows_of(day, self.seed, self._config.batch_size, self._config.shuffle_rows)

    def _read(self, day: Day, start: int) -> Iterator[Batch]:
        for window in self._windows(day):
            if start >= window.first_batch + window.num_batches:
                continue
            share = share_of(window, self.seed, day.day, self.rank, self.world_size)
            num_rows = rows_in_batch(window, self.seed, day.day)
            columns = self._columns(day, window, share)
            ends = np.cumsum([len(rows) for rows in share.rows_of_batch])
            for number in range(max(0, start - window.first_batch), window.num_batches):
                rows = slice(int(ends[number]) - len(share.rows_of_batch[number]), int(ends[number]))
                yield columns.batch(rows, share.padded_rows, window.first_batch + number, int(num_rows[number]))

    def _columns(self, day: Day, window: Window, share: Share) -> "_Columns":
        # A day is read twice, to be scored and to be trained on: its first window is kept, so that the second reading
        # begins at once, and the latest, so that a day of up to two windows is read from disk only once.
        key = (day.day, window.first_batch)
        if key not in self._kept:
            self._kept = {kept: columns for kept, columns in self._kept.items() if kept == (day.day, 0)}
            order = np.concatenate(share.rows_of_batch)
            self._kept[key] = _Columns.of(self._table(window, share), self.dataset.schema, order)
        return self._kept[key]

    def _table(self, window: Window, share: Share) -> pa.Table:
        schema = self.dataset.schema.arrow()
        parts: list[pa.Table] = []
        first_row = 0
        for group in window.row_groups:
            start = max(share.start - first_row, 0)
            stop = min(share.stop - first_row, group.rows)
            first_row += group.rows
            if start < stop:
                url = self.dataset.url(group.path)
                parts.append(_read_row_group(url, group.index, group.rows, schema).slice(start, stop - start))
        return pa.concat_tables(parts) if parts else schema.empty_table()


def _read_row_group(url: str, index: int, rows: int, schema: pa.Schema) -> pa.Table:
    filesystem, path = fsspec.core.url_to_fs(url)
    try:
        # A local file is mapped instead of copied through Python.
        local = filesystem.protocol in ("file", "local") or "file" in filesystem.protocol
        with pq.ParquetFile(path if local else filesystem.open(path), memory_map=local) as file:
            table = file.read_row_group(index, columns=schema.names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{url}: row group {index} cannot be read ({error}); prepare the data set anew") from error
    if table.num_rows != rows or table.schema.names != schema.names:
        raise DataError(
            f"{url}: row group {index} holds {table.num_rows} rows of {table.schema.names}, dataset.json says "
            f"{rows} rows of {schema.names}; prepare the data set anew"
        )
    return table


@dataclass
class _Columns:
    """A rank's rows of a window as arrays, batch after batch.

    Each column is put in order on its own, while it fits the cache, instead of picking a batch's
    rows from all columns. Numpy, since torch would wake its thread pool beside the model's.
    """

    schema: Schema
    labels: NDArray[np.float32]
    dense: NDArray[np.float32]
    """`[I, rows]`"""
    single: NDArray[np.int32]
    """`[single-valued features, rows]`"""
    multi: dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]]
    """Per multi-valued feature its offsets `[rows + 1]` and ids."""

    @classmethod
    def of(cls, table: pa.Table, schema: Schema, order: NDArray[np.int64]) -> "_Columns":
        dense = np.empty((schema.num_dense_inputs, len(order)), np.float32)
        mark = len(schema.dense)
        for row, feature in enumerate(schema.dense):
            np.take(table[feature.name].to_numpy(), order, out=dense[row])
            if feature.optional:
                missing = np.isnan(dense[row])
                dense[row][missing] = 0.0
                dense[mark] = missing
                mark += 1
        names = [feature.name for feature in schema.ids if not feature.multi_valued]
        single = np.empty((len(names), len(order)), np.int32)
        for row, name in enumerate(names):
            np.take(table[name].to_numpy(), order, out=single[row])
        multi = {feature.name: _jagged(table[feature.name], order) for feature in schema.ids if feature.multi_valued}
        return cls(schema, table[LABEL].to_numpy()[order].astype(np.float32), dense, single, multi)

    def batch(self, rows: slice, padded_rows: int, index: int, num_rows: int) -> Batch:
        size = rows.stop - rows.start
        dense = np.zeros((padded_rows, len(self.dense)), np.float32)
        dense[:size] = self.dense[:, rows].T
        labels = np.zeros(padded_rows, np.float32)
        labels[:size] = self.labels[rows]
        return Batch(
            dense=torch.from_numpy(dense),
            ids=self._ids(rows, padded_rows),
            labels=torch.from_numpy(labels),
            weights=_weights(size, padded_rows),
            index=index,
            num_rows=num_rows,
        )

    def _ids(self, rows: slice, padded_rows: int) -> KeyedJaggedTensor:
        keys = [feature.name for feature in self.schema.ids]
        picked = self.single[:, rows]
        size = rows.stop - rows.start
        if not self.multi:
            lengths, offsets = _single_valued(len(keys), size, padded_rows)
            values = torch.from_numpy(picked.astype(np.int64).reshape(-1))
            return KeyedJaggedTensor(keys, values, lengths=lengths, offsets=offsets)
        all_ids: list[NDArray[np.int32]] = []
        all_lengths: list[NDArray[np.int64]] = []
        single = iter(picked)
        for feature in self.schema.ids:
            if feature.multi_valued:
                offsets, ids = self.multi[feature.name]
                all_ids.append(ids[offsets[rows.start] : offsets[rows.stop]])
                lengths = np.diff(offsets[rows.start : rows.stop + 1])
            else:
                all_ids.append(next(single))
                lengths = np.ones(size, np.int64)
            all_lengths.append(np.pad(lengths, (0, padded_rows - size)))
        return KeyedJaggedTensor(
            keys,
            torch.from_numpy(np.concatenate(all_ids).astype(np.int64)),
            lengths=torch.from_numpy(np.concatenate(all_lengths)),
        )


def _jagged(column: pa.ChunkedArray, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Put a list column in order; return its offsets `[rows + 1]` and its ids."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    ids = lists.flatten().to_numpy()
    starts = offsets[order] - offsets[0]
    lengths = offsets[order + 1] - offsets[order]
    ends = np.cumsum(lengths)
    picked = ids[np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())]
    return np.concatenate([np.zeros(1, np.int64), ends]), picked


@lru_cache(maxsize=64)
def _single_valued(num_features: int, size: int, padded_rows: int) -> tuple[Tensor, Tensor]:
    lengths = torch.zeros(num_features, padded_rows, dtype=torch.int64)
    lengths[:, :size] = 1
    lengths = lengths.view(-1)
    return lengths, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


@lru_cache(maxsize=64)
def _weights(size: int, padded_rows: int) -> Tensor:
    weights = torch.zeros(padded_rows)
    weights[:size] = 1.0
    return weights


def _read_ahead(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """Run `batches` in a thread that stays up to `depth` ahead; its error is raised here, where it would have been."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the reader's caller, not swallowed
            put(error)

    thread = threading.Thread(target=read, name="day-stream", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
