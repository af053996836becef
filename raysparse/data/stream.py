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

    def __init__(
        self,
        dataset: Dataset,
        config: StreamConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        max_scored_rows: int | None = None,
    ) -> None:
        """`max_scored_rows` are scored of a day; None: all."""
        self.dataset = dataset
        self._max_scored_rows = max_scored_rows
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._config = config
        self._kept: dict[tuple[str, int, int], _Columns] = {}

    @property
    def batch_size(self) -> int:
        """Rows of a step, over all ranks."""
        return self._config.batch_size

    def num_batches(self, day: Day) -> int:
        """Batches of a day, the same on every rank."""
        return sum(window.num_batches for window in self._windows(day, self._config.batch_size))

    def batches(self, day: Day, start: int = 0) -> Iterator[Batch]:
        """Yield the day's batches from number `start` on, read ahead by a thread; DataError names a file."""
        return _read_ahead(self._read(day, start, self._config.batch_size), PREFETCHED_BATCHES)

    def scored_day(self, day: Day) -> Day:
        """The rows that are predicted before a day is learned: its own."""
        return day

    def scored_batches(self, day: Day) -> Iterator[Batch]:
        """Yield the batches that are predicted before a day is learned."""
        limit = self._max_scored_rows
        if limit is None:
            yield from self.batches(self.scored_day(day))
            return
        batch_size, rows = min(self._config.batch_size, limit), 0
        for batch in _read_ahead(self._read(self.scored_day(day), 0, batch_size), PREFETCHED_BATCHES):
            yield batch
            rows += batch.num_rows
            if rows > limit - batch_size / 2:  # a batch has about so many rows
                return

    def num_scored_rows(self, day: Day) -> int:
        """Rows that are predicted before a day is learned, or a few more or less where they are limited."""
        rows = self.scored_day(day).rows
        return rows if self._max_scored_rows is None else min(rows, self._max_scored_rows)

    def _windows(self, day: Day, batch_size: int) -> tuple[Window, ...]:
        return windows_of(day, self.seed, batch_size, self._config.shuffle_rows)

    def _read(self, day: Day, start: int, batch_size: int) -> Iterator[Batch]:
        for window in self._windows(day, batch_size):
            if start >= window.first_batch + window.num_batches:
                continue
            share = share_of(window, self.seed, day.day, self.rank, self.world_size)
            num_rows = rows_in_batch(window, self.seed, day.day)
            columns = self._columns(day, window, share)
            for number in range(max(0, start - window.first_batch), window.num_batches):
                yield columns.batch(number, window.first_batch + number, int(num_rows[number]))

    def _columns(self, day: Day, window: Window, share: Share) -> "_Columns":
        # A day is read twice, to be scored and to be trained on: its first window is kept, so that the second reading
        # begins at once, and the latest, so that a day of up to two windows is read from disk only once.
        key = (day.day, window.first_batch, window.num_batches)
        if key not in self._kept:
            self._kept = {kept: columns for kept, columns in self._kept.items() if kept[:2] == (day.day, 0)}
            self._kept[key] = _Columns.of(self._table(window, share), self.dataset.schema, share)
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
    """A rank's rows of a window as arrays, batch after batch: a batch is a view of them and costs nothing to make.

    Each column is put in order on its own, while it fits the cache, instead of picking a batch's
    rows from all columns. Numpy, since torch would wake its thread pool beside the model's.
    """

    keys: list[str]
    share: Share
    labels: NDArray[np.float32]
    """`[batches, padded rows]`"""
    dense: NDArray[np.float32]
    """`[batches, padded rows, I]`"""
    ids: NDArray[np.int64]
    """All ids: batch after batch, in a batch feature after feature, in a feature row after row."""
    first_id: NDArray[np.int64]
    """Where each batch's ids begin, and where the last one's end."""
    lengths: NDArray[np.int64] | None
    """`[batches, F, padded rows]`; None where every row has one id of each feature."""

    @classmethod
    def of(cls, table: pa.Table, schema: Schema, share: Share) -> "_Columns":
        order = np.concatenate(share.rows_of_batch)
        features = [_of_feature(table[feature.name], order, feature.multi_valued) for feature in schema.ids]
        ids, first_id = _ids_by_batch(features, share)
        several = any(feature.multi_valued for feature in schema.ids)
        return cls(
            keys=[feature.name for feature in schema.ids],
            share=share,
            labels=_padded(table[LABEL].to_numpy()[order].astype(np.float32), share),
            dense=_padded(_dense(table, schema, order).T, share),
            ids=ids,
            first_id=first_id,
            lengths=_lengths_by_batch(features, share) if several else None,
        )

    def batch(self, number: int, index: int, num_rows: int) -> Batch:
        size, padded_rows = len(self.share.rows_of_batch[number]), self.share.padded_rows
        ids = torch.from_numpy(self.ids[self.first_id[number] : self.first_id[number + 1]])
        if self.lengths is None:
            lengths, offsets = _single_valued(len(self.keys), size, padded_rows)
        else:
            lengths, offsets = torch.from_numpy(self.lengths[number].reshape(-1)), None
        return Batch(
            dense=torch.from_numpy(self.dense[number]),
            ids=KeyedJaggedTensor(self.keys, ids, lengths=lengths, offsets=offsets),
            labels=torch.from_numpy(self.labels[number]),
            weights=_weights(size, padded_rows),
            index=index,
            num_rows=num_rows,
        )


@dataclass(frozen=True)
class _Feature:
    """A feature's ids in the order in which the rows are read."""

    ids: NDArray[np.int32]
    first_id: NDArray[np.int64] | None
    """`[rows + 1]`: where each row's ids begin; None where every row has one."""

    def between(self, rows: slice) -> NDArray[np.int32]:
        if self.first_id is None:
            return self.ids[rows]
        return self.ids[self.first_id[rows.start] : self.first_id[rows.stop]]

    def lengths(self, rows: slice) -> NDArray[np.int64] | int:
        return 1 if self.first_id is None else np.diff(self.first_id[rows.start : rows.stop + 1])


def _of_feature(column: pa.ChunkedArray, order: NDArray[np.int64], multi_valued: bool) -> _Feature:
    if not multi_valued:
        return _Feature(column.to_numpy()[order], None)
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    ids = lists.flatten().to_numpy()
    starts = offsets[order] - offsets[0]
    lengths = offsets[order + 1] - offsets[order]
    ends = np.cumsum(lengths)
    picked = ids[np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())]
    return _Feature(picked, np.concatenate([np.zeros(1, np.int64), ends]))


def _rows_of_batches(share: Share) -> Iterator[slice]:
    """Where each batch's rows stand among the ordered ones."""
    start = 0
    for rows in share.rows_of_batch:
        yield slice(start, start + len(rows))
        start += len(rows)


def _ids_by_batch(features: list[_Feature], share: Share) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.empty(sum(len(feature.ids) for feature in features), np.int64)
    first_id = np.zeros(len(share.rows_of_batch) + 1, np.int64)
    done = 0
    for number, rows in enumerate(_rows_of_batches(share)):
        for feature in features:
            part = feature.between(rows)
            ids[done : done + len(part)] = part
            done += len(part)
        first_id[number + 1] = done
    return ids, first_id


def _lengths_by_batch(features: list[_Feature], share: Share) -> NDArray[np.int64]:
    lengths = np.zeros((len(share.rows_of_batch), len(features), share.padded_rows), np.int64)
    for number, rows in enumerate(_rows_of_batches(share)):
        for position, feature in enumerate(features):
            lengths[number, position, : rows.stop - rows.start] = feature.lengths(rows)
    return lengths


def _dense(table: pa.Table, schema: Schema, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """The dense inputs `[I, rows]` in order."""
    dense = np.empty((schema.num_dense_inputs, len(order)), np.float32)
    mark = len(schema.dense)
    for row, feature in enumerate(schema.dense):
        np.take(table[feature.name].to_numpy(), order, out=dense[row])
        if feature.optional:
            missing = np.isnan(dense[row])
            dense[row][missing] = 0.0
            dense[mark] = missing
            mark += 1
    return dense


def _padded(rows: NDArray[np.float32], share: Share) -> NDArray[np.float32]:
    """Give every batch as many rows, zeros after its own."""
    padded = np.zeros((len(share.rows_of_batch), share.padded_rows, *rows.shape[1:]), np.float32)
    for number, part in enumerate(_rows_of_batches(share)):
        padded[number, : part.stop - part.start] = rows[part]
    return padded


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
