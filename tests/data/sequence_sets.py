"""Small data sets of sequences for tests: most items follow each other in a ring, so that models can learn."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.dataset import (
    ITEM_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    Dataset,
    Day,
    Manifest,
    write_manifest,
    write_part,
)
from raysparse.data.schema import HISTORY, LABEL, TARGETS, sequence_schema

NUM_ITEMS = 40

Row = tuple[list[int], list[int]]
"""A history and the targets after it."""


def ids_of(rows: list[Row]) -> KeyedJaggedTensor:
    """Return rows as a batch has them."""
    lists = [history for history, _ in rows] + [targets for _, targets in rows]
    values = torch.tensor([item for items in lists for item in items], dtype=torch.int64)
    return KeyedJaggedTensor([HISTORY, TARGETS], values, lengths=torch.tensor([len(items) for items in lists]))


def sequences(num_users: int, num_items: int = NUM_ITEMS, seed: int = 0) -> list[list[int]]:
    """Draw a sequence per user of 3 to 14 items, most of them one after the other."""
    generator = np.random.default_rng(seed)
    drawn: list[list[int]] = []
    for _ in range(num_users):
        steps = np.where(generator.random(generator.integers(3, 15)) < 0.9, 1, generator.integers(0, num_items))
        drawn.append([1 + int(place) % num_items for place in generator.integers(0, num_items) + np.cumsum(steps)])
    return drawn


def write_parts(path: Path, drawn: list[list[int]], num_items: int = NUM_ITEMS) -> Dataset:
    """Leave out each user's last two items, and write the three parts."""
    rows = {
        TRAIN: [(items[:1], items[1:-2]) for items in drawn if len(items) > 3],
        VALIDATION: [(items[:-2], items[-2:-1]) for items in drawn],
        TEST: [(items[:-1], items[-1:]) for items in drawn],
    }
    counts = np.bincount([item for items in drawn for item in items[:-2]], minlength=num_items + 1)[1:]
    names = [f"item {row}" for row in range(1, num_items + 1)]
    path.mkdir(parents=True)
    pq.write_table(pa.table({"item": names, "count": counts}), path / ITEM_NAMES)
    return _write(path, rows, num_items, leaves_out=True)


def write_days(path: Path, days: list[list[Row]], num_items: int = NUM_ITEMS) -> Dataset:
    """Write a stream of days, each of rows of a history and its targets."""
    return _write(path, {f"2030-01-{day:02d}": rows for day, rows in enumerate(days, start=1)}, num_items, False)


def _write(path: Path, rows_of_day: dict[str, list[Row]], num_items: int, leaves_out: bool) -> Dataset:
    schema = sequence_schema(num_items)
    days: list[Day] = []
    for day, rows in rows_of_day.items():
        columns = {LABEL: [1] * len(rows), HISTORY: [row[0] for row in rows], TARGETS: [row[1] for row in rows]}
        table = pa.table({name: columns[name] for name in schema.arrow().names}, schema=schema.arrow())
        days.append(Day(day=day, files=(write_part(str(path), day, 0, table),)))
    protocol = "leave_one_out" if leaves_out else "days"
    manifest = Manifest(source={"source": "test"}, data_schema=schema, protocol=protocol, days=tuple(days))
    write_manifest(str(path), manifest)
    return Dataset.open(str(path))
