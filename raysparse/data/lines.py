"""Raw text files as blocks of whole lines: spans of uncompressed files, streams of compressed ones.

An uncompressed file is cut in byte ranges that tasks read on their own. A line belongs to the range that holds its
first byte, so every line is read once. A `.gz` file cannot be cut: one task streams it, block after block.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, cast

import fsspec
from fsspec.core import OpenFile

from raysparse.errors import DataError

SPAN_BYTES = 32 * 2**20
"""Uncompressed bytes of a task: some 140,000 Criteo rows, about 250 MB of memory while they are encoded."""
_READ_ON_BYTES = 64 * 2**10
_LONGEST_LINE = 16 * 2**20


@dataclass(frozen=True)
class Span:
    """A piece of the input that one task reads: a byte range of a text file, or a row group of a Parquet file."""

    number: int
    """Place in the order of the input."""
    path: str
    start: int
    """First byte; for Parquet the row group."""
    end: int
    file_bytes: int = 0
    compressed: bool = False
    columns: tuple[str, ...] = ()
    """Names in the file's header line; empty where it has none."""
    num_rows: int = 0
    """Lines without the header, counted by the first pass; so are the fields below."""
    num_parts: int = 1
    """Most part files that a day may get from this span."""
    first_line: int = 1
    """Number in the file of the first line."""
    first_row: int = 0
    """Rows in the spans before, over all files."""
    first_part: int = 0
    total_rows: int = 0
    """Rows in all spans."""


@dataclass(frozen=True)
class LineBlock:
    """Whole lines that lie one after the other, without a header."""

    data: bytes
    num_lines: int
    first_line: int
    first_row: int
    part: int


def list_files(location: str, preferred: tuple[str, ...] = (), pattern: str = r".*", key: str = "input") -> list[str]:
    """Files at `location`, which the job has under `key`: a file, a glob, or a folder (driver).

    Of a folder the first of the `preferred` names that is there, else all files whose name matches `pattern`.
    DataError where there are none, and where one is there packed and unpacked.
    """
    filesystem, root = fsspec.core.url_to_fs(location)
    if filesystem.isfile(root):
        paths = [root]
    elif filesystem.isdir(root):
        listed = sorted(cast(list[str], filesystem.ls(root, detail=False)))
        names = {path.rsplit("/", 1)[-1]: path for path in listed if filesystem.isfile(path)}
        chosen = [names[name] for name in preferred if name in names][:1]
        paths = chosen or [path for name, path in names.items() if re.fullmatch(pattern, name)]
    else:
        paths = sorted(path for path in cast(list[str], filesystem.glob(root)) if filesystem.isfile(path))
    if not paths:
        raise DataError(f"found no file of this source at {location}; set `{key}` to a file, a folder or a glob")
    twice = [path for path in paths if f"{path}.gz" in paths]
    if twice:
        raise DataError(
            f"{twice[0]} lies beside {twice[0]}.gz, and its rows would be read twice; take one of them away"
        )
    local = "file" in filesystem.protocol
    return [path if local else filesystem.unstrip_protocol(path) for path in paths]


def cut_file(path: str, columns: tuple[str, ...] = (), span_bytes: int = SPAN_BYTES) -> list[Span]:
    """Spans of one file, not yet numbered (driver)."""
    filesystem, root = fsspec.core.url_to_fs(path)
    size = int(filesystem.size(root) or 0)
    if path.endswith(".gz"):
        return [Span(0, path, 0, size, size, compressed=True, columns=columns)]
    if path.endswith((".zip", ".bz2", ".xz", ".zst", ".7z")):
        raise DataError(f"{path} is packed in a way that is not read here; unpack it, or pack it with gzip")
    starts = range(0, max(size, 1), span_bytes)
    return [Span(0, path, start, min(start + span_bytes, size), size, columns=columns) for start in starts]


def read_header(path: str) -> bytes:
    """Read the first line of a file, without its line end; DataError where the file is empty or damaged (driver)."""
    with _open(path) as file:
        line = _guard(path, lambda: file.readline(_LONGEST_LINE))
    if not line.strip():
        raise DataError(f"{path} is empty; a header line and rows are expected")
    return line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")


def count_rows(span: Span) -> Span:
    """First pass (worker): the rows of a text span, and how many part files it may fill."""
    if span.compressed:
        num_lines = num_bytes = 0
        last = b"\n"
        for chunk in _stream(span.path, SPAN_BYTES):
            num_lines += chunk.count(b"\n")
            num_bytes += len(chunk)
            last = chunk[-1:]
        num_lines += last != b"\n"
        num_parts = num_bytes // SPAN_BYTES + 2
    else:
        before = max(span.start - 1, 0)
        # A line starts where the byte before it ends one: no look beyond the range is needed.
        num_lines = _read(span.path, before, span.end - 1).count(b"\n") + (span.start == 0 and span.end > 0)
        num_parts = 1
    has_header = bool(span.columns) and span.start == 0
    return replace(span, num_rows=max(num_lines - has_header, 0), num_parts=num_parts)


def lay_out(spans: list[Span]) -> list[Span]:
    """Give counted spans, in the order of the input, their number, first line, row and part (driver).

    DataError for a file without rows.
    """
    placed: list[Span] = []
    first_row = first_part = 0
    next_line: dict[str, int] = {}
    for number, span in enumerate(spans):
        first_line = next_line.setdefault(span.path, 2 if span.columns else 1)
        placed.append(replace(span, number=number, first_line=first_line, first_row=first_row, first_part=first_part))
        next_line[span.path] += span.num_rows
        first_row += span.num_rows
        first_part += span.num_parts
    rows_of: dict[str, int] = {}
    for span in placed:
        rows_of[span.path] = rows_of.get(span.path, 0) + span.num_rows
    empty = [path for path, rows in rows_of.items() if rows == 0]
    if empty:
        raise DataError(f"{', '.join(empty)} holds no rows; replace the file, or leave it out of `input`")
    return [replace(span, total_rows=first_row) for span in placed]


def read_blocks(span: Span) -> Iterator[LineBlock]:
    """Read the lines of a counted span, without the header (worker); DataError where the file is damaged."""
    line, row, part = span.first_line, span.first_row, span.first_part
    has_header = bool(span.columns) and span.start == 0
    for data in _stream_lines(span.path) if span.compressed else [_read_lines(span)]:
        if has_header and data:
            data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
            has_header = False
        num_lines = data.count(b"\n") + (data[-1:] not in (b"\n", b""))
        if num_lines:
            yield LineBlock(data, num_lines, line, row, part)
            line, row, part = line + num_lines, row + num_lines, part + 1


def _read_lines(span: Span) -> bytes:
    before = max(span.start - 1, 0)
    data = _read(span.path, before, span.end)
    if span.start > 0:
        first = data.find(b"\n")
        if first < 0 or span.start + first >= span.end:
            return b""
        data = data[first + 1 :]
    position = span.end
    pieces = [data]
    while not pieces[-1].endswith(b"\n") and position < span.file_bytes:
        piece = _read(span.path, position, min(position + _READ_ON_BYTES, span.file_bytes))
        position += len(piece)
        if position - span.end > _LONGEST_LINE:
            raise DataError(f"{span.path} has a line of more than {_LONGEST_LINE} bytes near byte {span.end}")
        end = piece.find(b"\n")
        pieces.append(piece if end < 0 else piece[: end + 1])
    return b"".join(pieces)


def _stream_lines(path: str) -> Iterator[bytes]:
    rest = b""
    for chunk in _stream(path, SPAN_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(rest) > _LONGEST_LINE:
            raise DataError(f"{path} has a line of more than {_LONGEST_LINE} bytes")
        yield rest + chunk[:end] if end else b""
        rest = chunk[end:] if end else rest + chunk
    yield rest


def _stream(path: str, num_bytes: int) -> Iterator[bytes]:
    with _open(path) as file:
        while chunk := _guard(path, lambda: file.read(num_bytes)):
            yield chunk


def _guard(path: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is cut off or damaged ({error}); fetch the file again") from error


def _open(path: str) -> IO[bytes]:
    compression = "gzip" if path.endswith(".gz") else None
    return cast(IO[bytes], cast(OpenFile, fsspec.open(path, "rb", compression=compression)).open())


def _read(path: str, start: int, end: int) -> bytes:
    if end <= start:
        return b""
    filesystem, root = fsspec.core.url_to_fs(path)
    return cast(bytes, filesystem.cat_file(root, start=start, end=end))
