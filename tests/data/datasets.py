"""Small data sets on disk for tests."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from raysparse.data.dataset import Dataset, Day, Manifest, write_manifest, write_part
from raysparse.data.schema import LABEL, DenseFeature, IdFeature, Schema

PLAIN = Schema(
    dense=(DenseFeature(name="number"), DenseFeature(name="gap", optional=True)),
    ids=(IdFeature(name="user", rows=1000), IdFeature(name="item", rows=500)),
)
RENAMED = Schema(dense=PLAIN.dense, ids=(IdFeature(name="user", rows=1000, table="people"), PLAIN.ids[1]))
"""As `PLAIN`, with a table of another name."""
JAGGED = Schema(ids=(IdFeature(name="user", rows=1000), IdFeature(name="tags", rows=50, multi_valued=True)))


def write_dataset(path: Path, schema: Schema, rows_of_day: list[list[int]], seed: int = 0) -> Dataset:
    """Write days of so many rows per file; the label follows the user, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    days: list[Day] = []
    row = 0
    for index, sizes in enumerate(rows_of_day):
        files = []
        for number, size in enumerate(sizes):
            files.append(write_part(str(path), f"{index:03d}", number, _table(schema, size, row, generator)))
            row += size
        days.append(Day(day=f"{index:03d}", files=tuple(files)))
    write_manifest(str(path), Manifest(source={"source": "test"}, data_schema=schema, days=tuple(days)))
    return Dataset.open(str(path))


def _table(schema: Schema, size: int, first: int, generator: np.random.Generator) -> pa.Table:
    user = generator.integers(1, 30, size).astype(np.int32)
    label = (generator.random(size) < 0.1 + 0.6 * (user % 3 == 0)).astype(np.int8)
    columns: dict[str, object] = {LABEL: label, "user": user}
    columns["number"] = np.arange(first, first + size).astype(np.float32) / 1000
    columns["gap"] = np.where(generator.random(size) < 0.2, np.nan, 1.5).astype(np.float32)
    columns["item"] = generator.integers(1, 500, size).astype(np.int32)
    columns["tags"] = [list(range(1 + index % 4, 1 + index % 4 + index % 3)) for index in range(size)]
    arrow = schema.arrow()
    return pa.table({name: columns[name] for name in arrow.names}, schema=arrow)
