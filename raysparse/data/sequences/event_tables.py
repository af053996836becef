"""Own CSV and Parquet files of events, by the names of their columns: the format `table`."""

from collections.abc import Iterator
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from raysparse.data.delimited import LineFormat, parse_block
from raysparse.data.fields import Faults
from raysparse.data.lines import list_files
from raysparse.data.parquet import is_text, open_parquet, reject_rows, type_of
from raysparse.data.rejects import Rejects
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
        for batch in self._batches(path):
            columns = {name: _plain(batch.column(name)) for name in self._rule.used}
            faults = Faults(batch.num_rows)
            events = self._rule.events(columns, faults)
            reject_rows(path, batch, first_row, faults, rejects)
            first_row += batch.num_rows
            yield events

    def _batches(self, path: str) -> Iterator[pa.RecordBatch]:
        with open_parquet(path, self._rule.used) as parquet:
            _require_types(path, parquet, self._rule)
            try:
                yield from parquet.iter_batches(_ROWS_AT_A_TIME, columns=list(self._rule.used))
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path} is damaged ({error}); fetch it again") from error


def _require_types(path: str, parquet: pq.ParquetFile, rule: EventRule) -> None:
    for name in (rule.user, rule.item):
        kind = type_of(parquet, name)
        if not (pa.types.is_integer(kind) or is_text(kind)):
            raise DataError(f"{path}: the column {name} holds {kind}; users and items are read from integers or text")
    kind = type_of(parquet, rule.time)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if is_number and rule.time_format == "date":
        raise DataError(
            f"{path}: the column {rule.time} holds {kind}, no dates; set columns.time_format to unix_s or unix_ms"
        )
    if not (is_number or is_text(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise DataError(
            f"{path}: the column {rule.time} holds {kind}; times are read from dates, timestamps, numbers or text: set "
            "columns.time to a column of these"
        )
    if rule.rating:
        kind = type_of(parquet, rule.rating)
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or is_text(kind)):
            raise DataError(f"{path}: the column {rule.rating} holds {kind}; ratings are read from numbers or text")


def _plain(column: pa.Array) -> pa.Array:
    """Read the several kinds of text as one."""
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    return column.cast(pa.string()) if is_text(column.type) else column
