"""Any CSV or Parquet files, with a mapping of their columns to label, day, numbers and ids."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from raysparse.config import Config
from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import LineFormat
from raysparse.data.fields import Days, Faults, log_count, to_days, to_floats, to_label, to_unix_seconds, to_utc_days
from raysparse.data.hashing import hash_id_lists, hash_ids
from raysparse.data.lines import Span, count_rows, cut_file, list_files
from raysparse.data.parquet import is_list, is_text, open_parquet, reject_rows, type_of
from raysparse.data.rejects import Rejects
from raysparse.data.schema import LABEL, MAX_TABLE_ROWS, DenseFeature, IdFeature, Schema
from raysparse.data.sources.source import (
    Column,
    Encoded,
    EncodedBlock,
    SourceConfig,
    encode_text,
    finish_block,
    header_columns,
)
from raysparse.errors import DataError

_DAY_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
"""What can be the name of a folder everywhere."""
_DAY_NUMBER = re.compile(r"\d{1,8}")


class LabelColumn(Config):
    """How the label is read: as 0 and 1 (or a boolean), as texts of two sets, or as a number over a threshold."""

    column: str
    """Name in the file."""
    positive: tuple[str, ...] = ()
    """Texts that mean 1; with `negative`."""
    negative: tuple[str, ...] = ()
    """Texts that mean 0; any other is a bad row."""
    threshold: float | None = None
    """Numbers from here on are 1, those below 0."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.positive) != bool(self.negative):
            raise ValueError("`positive` and `negative` given together")
        if self.positive and self.threshold is not None:
            raise ValueError("`positive` and `negative`, or `threshold`, not both")
        return self


class DayColumn(Config):
    """How the day is read."""

    column: str
    """Name in the file."""
    format: str = "date"
    """`date` (2013-01-31; a time may follow, one with a zone is taken to UTC), `unix_s`, `unix_ms`, `number` (a day's
    number of up to eight digits, written with all eight), `name` (text as it is; days are ordered by it), or a strptime
    format such as `%d/%m/%Y`."""
    unit: Literal["day", "hour"] = "day"
    """What counts as a day of the stream, for dates and timestamps."""


class DenseColumn(Config):
    """A number: transformed, then `(x - shift) / scale` with constants that are given here, not fitted."""

    column: str
    """Name in the file, and of the feature."""
    transform: Literal["none", "log1p"] = "none"
    """`log1p`: log(1 + max(x, 0)), for counts."""
    shift: float = 0.0
    """Taken from the transformed value."""
    scale: float = Field(default=1.0, gt=0)
    """The shifted value is divided by it."""
    optional: bool = False
    """Whether it may be missing; else a row without it is a bad row."""


class IdColumn(Config):
    """An id, or a list of ids."""

    column: str
    """Name in the file, and of the feature."""
    rows: int | None = Field(default=None, ge=2, le=MAX_TABLE_ROWS)
    """Rows of its table; empty: `rows_per_table`."""
    table: str = ""
    """Table shared with the features of the same `table`; empty: its own."""
    multi_valued: bool = False
    """Whether it holds a list: a Parquet list column, or text split at `separator`."""
    separator: str = Field(default="|", min_length=1)
    """What stands between the ids of a list in a text."""


class TableConfig(SourceConfig):
    """Own data: `.csv`, `.tsv`, `.txt` (also `.gz`, with a header line) or `.parquet` files."""

    source: Literal["table"] = "table"
    input: str
    """A file, a glob, or a folder of such files."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """What stands between the columns of a text file; values may be quoted with `"`, line ends inside are not read."""
    label: LabelColumn
    """The label."""
    day: DayColumn
    """The day."""
    dense: tuple[DenseColumn, ...] = ()
    """The numbers."""
    ids: tuple[IdColumn, ...] = Field(min_length=1)
    """The ids."""
    ordered: bool = False
    """Whether rows lie in the order of their days; then files are written as they are read, without a sort. Otherwise a
    day is sorted in the memory of one process."""

    @model_validator(mode="after")
    def _has_features_that_can_be(self) -> Self:
        if self.rows:
            raise ValueError("no `rows` for the source `table`; give `rows` of the column under `ids`")
        names = [LABEL, "day", *(column.column for column in (*self.dense, *self.ids))]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(
                "columns under `dense` and `ids` that stand there once and are not called label or day; found "
                f"{', '.join(double)}"
            )
        sizes: dict[str, int] = {}
        for column in self.ids:
            table, rows = column.table or column.column, column.rows or self.rows_per_table
            if sizes.setdefault(table, rows) != rows:
                raise ValueError(
                    f"one size for the shared table {table!r}; found {sizes[table]:,} and {rows:,} rows: give each of "
                    "its ids the same `rows`"
                )
        return self


class Table:
    """Mapped columns of CSV or Parquet files."""

    notes = ""

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        self.ordered = config.ordered
        named = [config.label, config.day, *config.dense, *config.ids]
        self.used = tuple(dict.fromkeys(column.column for column in named))

    def schema(self) -> Schema:
        """Describe the features of the mapping."""
        size = self.config.rows_per_table
        return Schema(
            dense=tuple(DenseFeature(name=column.column, optional=column.optional) for column in self.config.dense),
            ids=tuple(
                IdFeature(
                    name=column.column, rows=column.rows or size, table=column.table, multi_valued=column.multi_valued
                )
                for column in self.config.ids
            ),
        )

    def spans(self) -> list[Span]:
        """Byte ranges of text files, row groups of Parquet files (driver)."""
        files = list_files(self.config.input, pattern=r".*\.((csv|tsv|txt)(\.gz)?|parquet)")
        return [span for path in files for span in self._cut(path)]

    def count(self, span: Span) -> Span:
        """Rows of the span (worker)."""
        return span if span.path.endswith(".parquet") else count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """Known from the rows alone."""
        return []

    def read_beside(self, rejects: Rejects) -> None:
        """Nothing lies beside the rows."""

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a span (worker)."""
        if span.path.endswith(".parquet"):
            return self._read_parquet(span, rejects)
        form = LineFormat(span.columns, self.used, self.config.delimiter, quoted=True)
        return encode_text(span, form, self._encode, self.schema(), rejects)

    def _cut(self, path: str) -> list[Span]:
        if not path.endswith(".parquet"):
            return cut_file(path, header_columns(path, self.config.delimiter, self.used))
        with open_parquet(path, self.used) as parquet:
            self._require_types(path, parquet)
            groups = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        return [Span(0, path, group, group + 1, num_rows=rows) for group, rows in enumerate(groups or [0])]

    def _require_types(self, path: str, parquet: pq.ParquetFile) -> None:
        kinds = {name: type_of(parquet, name) for name in self.used}
        lists = {column.column for column in self.config.ids if column.multi_valued}
        for name, kind in kinds.items():
            value = kind.value_type if is_list(kind) else kind
            if not _is_readable(value):
                raise DataError(
                    f"{path}: the column {name} holds {kind}; numbers, text, dates and lists of numbers or text can be "
                    "read"
                )
        single = [self.config.label, self.config.day, *self.config.dense]
        for name in (column.column for column in single if is_list(kinds[column.column])):
            raise DataError(f"{path}: the column {name} holds {kinds[name]}; lists can be read under `ids` alone")
        for name in (column.column for column in self.config.ids):
            if is_list(kinds[name]) and name not in lists:
                raise DataError(
                    f"{path}: the id column {name} holds {kinds[name]}; set multi_valued: true for it under `ids`"
                )
            if pa.types.is_floating(kinds[name]):
                raise DataError(
                    f"{path}: the id column {name} holds {kinds[name]}; write it as integers or text, or under `dense`"
                )

    def _read_parquet(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        with open_parquet(span.path, self.used) as parquet:
            try:
                group = parquet.read_row_group(span.start, columns=list(self.used))
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(
                    f"{span.path} is damaged in row group {span.start} ({error}); fetch it again"
                ) from error
        raw = {name: _plain(group[name].combine_chunks()) for name in self.used}
        places = np.arange(group.num_rows) + span.first_row
        faults = Faults(group.num_rows)
        encoded = self._encode(raw, places, faults)
        reject_rows(span.path, group, span.first_line, faults, rejects, encoded.days)
        yield finish_block(self.schema(), encoded, places, faults, span.first_part)

    def _encode(self, raw: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
        columns: dict[str, Column] = {LABEL: _label(raw[self.config.label.column], self.config.label, faults)}
        for column in self.config.dense:
            values = to_floats(raw[column.column], column.column, faults, column.optional)
            values = log_count(values).astype(np.float64) if column.transform == "log1p" else values
            columns[column.column] = ((values - column.shift) / column.scale).astype(np.float32)
        for column, feature in zip(self.config.ids, self.schema().ids, strict=True):
            columns[column.column] = _ids(raw[column.column], column, feature.rows)
        return Encoded(columns, _days(raw[self.config.day.column], self.config.day, faults))


def _is_readable(kind: pa.DataType) -> bool:
    types = pa.types
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    return is_number or is_text(kind) or types.is_temporal(kind) or types.is_null(kind)


def _plain(column: pa.Array) -> pa.Array:
    """Read a Parquet column as numbers or text, empty text as null; lists as lists of text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    if is_list(kind):
        return column.cast(pa.list_(pa.string()))
    texts = column.cast(pa.string())
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.string()), texts)


def _text(column: pa.Array) -> pa.Array:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _label(column: pa.Array, rule: LabelColumn, faults: Faults) -> npt.NDArray[np.int8]:
    if rule.threshold is not None:
        return (to_floats(column, rule.column, faults) >= rule.threshold).astype(np.int8)
    if not rule.positive:
        return to_label(_text(column), faults)
    ones, zeros = (np.asarray(pc.is_in(_text(column), pa.array(texts))) for texts in (rule.positive, rule.negative))
    faults.mark(~(ones | zeros), "the label is none of the texts for 1 and 0")
    return ones.astype(np.int8)


def _ids(column: pa.Array, rule: IdColumn, rows: int) -> Column:
    if not rule.multi_valued:
        return hash_ids(_text(column), rows)
    if not pa.types.is_list(column.type):
        column = pc.split_pattern(_text(column), rule.separator)
    return hash_id_lists(column, rows)


def _days(column: pa.Array, rule: DayColumn, faults: Faults) -> Days:
    if rule.format in ("unix_s", "unix_ms"):
        seconds = to_unix_seconds(column, rule.column, rule.format == "unix_ms", faults)
        return to_utc_days(seconds, rule.column, faults, hours=rule.unit == "hour")
    return to_days(_text(column), rule.column, _day_parser(rule), faults)


def _day_parser(rule: DayColumn) -> Callable[[str], str | None]:
    form = "%Y-%m-%dT%H" if rule.unit == "hour" else "%Y-%m-%d"

    def parse(text: str) -> str | None:
        if rule.format == "name":
            return text if _DAY_NAME.fullmatch(text) else None
        if rule.format == "number":
            return f"{int(text):08d}" if _DAY_NUMBER.fullmatch(text) else None
        try:
            date = datetime.fromisoformat(text) if rule.format == "date" else datetime.strptime(text, rule.format)
        except ValueError:
            return None
        return (date if date.tzinfo is None else date.astimezone(UTC)).strftime(form)

    return parse
