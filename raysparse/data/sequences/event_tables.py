"""Own CSV and Parquet files of events, by the names of their columns: the format `table`."""

from collections.abc import Iterator
from typing import cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from raysparse.data.delimited import LineFormat, parse_block
from raysparse.data.fields import Faults
from raysparse.data.lines import list_files
from raysparse.data.rejects import Reject, Rejects, readable
from raysparse.data.sequences.config import EventColumns, SequencesConfig
from raysparse.data.sequences.event_rows import EventRule, line_events, read_lines
from raysparse.data.sequences.events import EventBlock
from raysparse.data.sources.source import header_columns
from raysparse.errors import DataError

_ROWS_AT_A_TIME = 2**20


class EventTables:
    """Mapped columns of `.parquet`, and of `.csv`, `.tsv` and `.txt` (also `.gz`) files with a header line."""

    def __init__(self, config: SequencesConfig) -> None:
        columns = cast(EventColumns, config.columns)
        rated = config.min_rating is not None
        self._delimiter = columns.delimiter
        self._rule = EventRule(
            columns.user,
            columns.item,
            columns.time,
            columns.time_format,
            columns.rating if rated else "",
            config.min_rating or 0.0,
        )
        self._paths = list_files(config.input, pattern=r".*\.((csv|tsv|txt)(\.gz)?|parquet)")

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of all files (driver)."""
        for path in self._paths:
            yield from self._parquet(path, rejects) if path.endswith(".parquet") else self._text(path, rejects)

    def _text(self, path: str, rejects: Rejects) -> Iterator[EventBlock]:
        header = header_columns(path, self._delimiter, self._rule.used)
        form = LineFormat(header, self._rule.used, self._delimiter, quoted=True)
        return line_events(path, read_lines(path, header), lambda block: parse_block(block, form), self._rule, rejects)

    def _parquet(self, path: str, rejects: Rejects) -> Iterator[EventBlock]:
        first_row = 1
        for batch in _batches(path, self._rule.used):
            columns = {name: _plain(batch.column(name)) for name in self._rule.used}
            faults = Faults(batch.num_rows)
            events = self._rule.events(columns, faults)
            for row, reason in sorted(faults.reasons.items()):
                text = readable(str(batch.slice(row, 1).to_pylist()[0]).encode())
                rejects.add(Reject(path, first_row + row, reason, text))
            first_row += batch.num_rows
            yield events


def _batches(path: str, used: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    with fsspec.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(cast(pa.NativeFile, file))
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} is no whole Parquet file ({error}); fetch it again") from error
        missing = [name for name in used if name not in parquet.schema_arrow.names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}; it has {parquet.schema_arrow.names}")
        try:
            yield from parquet.iter_batches(_ROWS_AT_A_TIME, columns=list(used))
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is damaged ({error}); fetch it again") from error


def _plain(column: pa.Array) -> pa.Array:
    """Read the several kinds of text as one."""
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column
