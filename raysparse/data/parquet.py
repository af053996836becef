"""A user's own Parquet files: opened, the types of the columns that are read, and rows kept aside (any process)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from raysparse.data.fields import Days, Faults
from raysparse.data.rejects import Reject, Rejects, readable
from raysparse.errors import DataError


@contextmanager
def open_parquet(path: str, used: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """Open a file that has the columns `used`; DataError where it is no whole one or lacks a column."""
    with fsspec.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(cast(pa.NativeFile, file))
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} is no whole Parquet file ({error}); fetch it again") from error
        missing = [name for name in used if name not in parquet.schema_arrow.names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}; it has {parquet.schema_arrow.names}")
        require_once(path, used, parquet.schema_arrow.names)
        yield parquet


def require_once(path: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise DataError where a wanted column stands in a file, Parquet or text, more than once."""
    twice = [name for name in wanted if found.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}; give each a name of its own")


def type_of(parquet: pq.ParquetFile, name: str) -> pa.DataType:
    """Return the type of a column's values, whether they are coded by a dictionary or not."""
    kind = parquet.schema_arrow.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds one of the several kinds of text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column holds a list in each row."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def reject_rows(
    path: str,
    rows: pa.Table | pa.RecordBatch,
    first_row: int,
    faults: Faults,
    rejects: Rejects,
    days: Days | None = None,
) -> None:
    """Keep the rows at fault aside; `first_row` is the place of the first one in the file, from 1."""
    for row, reason in sorted(faults.reasons.items()):
        text = readable(str(rows.slice(row, 1).to_pylist()[0]).encode())
        rejects.add(Reject(path, first_row + row, reason, text, days.name(row) if days is not None else ""))
