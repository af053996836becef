"""Blocks of delimited lines as tables of text columns, and the lines that do not fit.

The reader of pyarrow takes a whole block at once. Only where a block is not clean (bytes that are not UTF-8, an
empty line, a quote that is not closed) are single lines looked at, and they alone are set aside.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from raysparse.data.lines import LineBlock, count_rows, cut_file, lay_out, read_blocks

_INNER_DELIMITER = b"\x1f"
"""Stands for a delimiter of more than one byte, which the reader does not know: the ASCII unit separator."""
_CACHED_BYTES = 2**20
"""Bytes that the reader takes at a time: within the cache it is twice as fast as with a whole span at once."""
_EMPTY_LINE = "an empty line"
_NOT_UTF8 = "bytes that are not UTF-8"
_CARRIAGE_RETURN = "a carriage return inside the line"
_OPEN_QUOTE = "a quote that is not closed"

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LineFormat:
    """How a line is cut into columns."""

    columns: tuple[str, ...]
    """All columns, as they stand in the line."""
    used: tuple[str, ...]
    """The columns that are read."""
    delimiter: str = "\t"
    quoted: bool = False
    """Whether `"` encloses values that hold the delimiter. A line end inside quotes is not read."""
    encoding: str = "utf-8"


@dataclass(frozen=True)
class TextRows:
    """The lines of a block that have the right columns, as text; an empty value is null."""

    columns: dict[str, pa.Array]
    lines: Index
    """Place in the block of each row's line, `[rows]`."""
    misfits: dict[int, str]
    """Reason for each line of the block that is no row."""


def parse_block(block: LineBlock, form: LineFormat) -> TextRows:
    """Cut the lines of a block into columns (worker)."""
    data = block.data if form.encoding == "utf-8" else block.data.decode(form.encoding).encode()
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    misfits = {} if _is_clean(data) else _odd_lines(data)
    lines = np.arange(block.num_lines)
    if misfits:
        lines = np.delete(lines, list(misfits))
        texts = data.split(b"\n")
        data = b"\n".join(texts[line] for line in lines)
    tables: list[pa.Table] = []
    kept: list[Index] = []
    for table, at, odd in _parse_lines(data, lines, form):
        tables.append(table)
        kept.append(at)
        misfits |= odd
    whole = pa.concat_tables(tables).combine_chunks()
    columns = {name: _one_chunk(whole[name]) for name in form.used}
    return TextRows(columns, np.concatenate(kept), dict(sorted(misfits.items())))


def read_whole_file(path: str, form: LineFormat, header: bool = False) -> Iterator[tuple[LineBlock, TextRows]]:
    """Read a file that goes beside the rows (a table of users or items) from end to end (worker)."""
    spans = cut_file(path, form.columns if header else ())
    for span in lay_out([count_rows(span) for span in spans]):
        for block in read_blocks(span):
            yield block, parse_block(block, form)


def _is_clean(data: bytes) -> bool:
    if b"\n\n" in data or data.startswith(b"\n") or b"\r" in data:
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _odd_lines(data: bytes) -> dict[int, str]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return {number: reason for number, line in enumerate(lines) if (reason := _oddness(line))}


def _oddness(line: bytes) -> str:
    if not line:
        return _EMPTY_LINE
    if b"\r" in line:
        return _CARRIAGE_RETURN
    try:
        line.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8
    return ""


def _parse_lines(data: bytes, lines: Index, form: LineFormat) -> Iterator[tuple[pa.Table, Index, dict[int, str]]]:
    """Parse clean lines; where an open quote has swallowed a line end, halve them until it stands alone."""
    if len(form.delimiter) > 1:
        data = data.replace(form.delimiter.encode(), _INNER_DELIMITER)
        form = replace(form, delimiter=_INNER_DELIMITER.decode())
    table, short = _read_with_end(data, form) if form.quoted else _read_cached(data, form)
    if table.num_rows + len(short) == len(lines):
        odd = {int(lines[row]): f"{found} instead of {len(form.columns)} columns" for row, found in short.items()}
        yield table, np.delete(lines, list(short)), odd
    elif len(lines) == 1:
        yield table.slice(0, 0), lines[:0], {int(lines[0]): _OPEN_QUOTE}
    else:
        middle = len(lines) // 2
        cut = int(np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))[middle - 1]) + 1
        yield from _parse_lines(data[:cut], lines[:middle], form)
        yield from _parse_lines(data[cut:], lines[middle:], form)


def _read_with_end(data: bytes, form: LineFormat) -> tuple[pa.Table, dict[int, int]]:
    """Read quoted lines with one more of empty values: a quote left open before it swallows it, and is seen."""
    if not data:
        return _read_csv(data, form, 1)
    end = b"" if data.endswith(b"\n") else b"\n"
    data = b"".join((data, end, form.delimiter.encode() * (len(form.columns) - 1), b"\n"))
    table, short = _read_csv(data, form, len(data))
    return table.slice(0, max(table.num_rows - 1, 0)), short if table.num_rows else {}


def _read_cached(data: bytes, form: LineFormat) -> tuple[pa.Table, dict[int, int]]:
    try:
        return _read_csv(data, form, _CACHED_BYTES)
    except pa.ArrowInvalid:
        # A line is longer than what the reader takes at a time.
        return _read_csv(data, form, len(data))


def _read_csv(data: bytes, form: LineFormat, block_bytes: int) -> tuple[pa.Table, dict[int, int]]:
    """Read the rows, and the number of columns of each line that has too few or too many, by its place."""
    short: dict[int, int] = {}
    if not data:
        return pa.table({name: pa.array([], pa.string()) for name in form.used}), short

    def note(row: pa_csv.InvalidRow) -> str:
        short[row.number - 1] = row.actual_columns
        return "skip"

    table = pa_csv.read_csv(
        pa.BufferReader(data),
        pa_csv.ReadOptions(use_threads=False, block_size=block_bytes, column_names=list(form.columns)),
        pa_csv.ParseOptions(
            delimiter=form.delimiter,
            quote_char='"' if form.quoted else False,
            double_quote=form.quoted,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        ),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(form.columns, pa.string()),
            include_columns=list(form.used),
            check_utf8=False,  # the block as a whole was checked, at a fraction of the cost
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    return table, short


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], pa.string())])
