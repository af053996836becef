"""What all sources share: the keys of their configs, the protocol, and the way from text lines to encoded rows."""

import csv
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from raysparse.config import Config
from raysparse.data.delimited import LineFormat, TextRows, parse_block
from raysparse.data.fields import Days, Faults
from raysparse.data.lines import LineBlock, Span, read_blocks, read_header
from raysparse.data.parquet import require_once
from raysparse.data.rejects import Reject, Rejects, readable
from raysparse.data.schema import MAX_TABLE_ROWS, IdFeature, Schema
from raysparse.errors import ConfigError, DataError

Column = pa.Array | npt.NDArray[np.generic]

FEW = 1_000
"""Rows of a table for an id of a few dozen values: enough that they seldom collide."""


class SourceConfig(Config):
    """Keys of every source of raw files."""

    rows_per_table: int = Field(default=100_000, ge=2, le=MAX_TABLE_ROWS)
    """Rows of each embedding table; ids of few values get a smaller one, up to this."""
    rows: dict[str, Annotated[int, Field(ge=2, le=MAX_TABLE_ROWS)]] = {}
    """Rows of the table of single features, by name, over `rows_per_table`."""
    max_bad_rows: int = Field(default=100, ge=0)
    """Rows that may be unreadable before the preparation stops; they are kept aside in `rejects/`."""


@dataclass(frozen=True)
class EncodedBlock:
    """Rows as they stand in a part file, and where each belongs."""

    table: pa.Table
    """Columns as `Schema.arrow()`."""
    days: Days
    rows: npt.NDArray[np.int64]
    """Place of each row in the whole input, which is its place in the day."""
    part: int
    """Number of the part file that the block gives to each of its days."""
    num_left_out: int = 0
    """Rows without a label, which are left out and no rejects."""


class Source(Protocol):
    """A kind of raw data. Cheap; made on the driver and sent to the workers."""

    ordered: bool
    """Whether a day's rows lie together, so that each span can write its own part files."""
    notes: str
    """What a reader of the manifest should know; empty: nothing."""

    def schema(self) -> Schema:
        """Describe the features."""
        ...

    def spans(self) -> list[Span]:
        """Cut the input in pieces, not yet counted (driver); DataError where there is none."""
        ...

    def count(self, span: Span) -> Span:
        """First pass (worker): the span with its rows counted."""
        ...

    def expected_days(self, spans: list[Span]) -> list[str]:
        """Days that must have rows, where that is known before they are read."""
        ...

    def read_beside(self, rejects: Rejects) -> None:
        """Read the files beside the rows once, for the rows of them that are wrong (worker)."""
        ...

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a counted span (worker)."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A block's columns by name, and the days of its rows, before rows at fault are dropped."""

    columns: dict[str, Column]
    days: Days


Encode = Callable[[dict[str, pa.Array], npt.NDArray[np.int64], Faults], Encoded]
"""From text columns and the rows' places in the input to encoded columns; faults are marked."""


def id_features(config: SourceConfig, sizes: dict[str, int | None]) -> tuple[IdFeature, ...]:
    """Id features with their tables' rows: those of the config, else at most the given size (None: the largest)."""
    unknown = sorted(set(config.rows) - set(sizes))
    if unknown:
        raise ConfigError(f"rows: unknown feature {', '.join(unknown)}; allowed here: {', '.join(sizes)}")
    largest = config.rows_per_table
    return tuple(
        IdFeature(name=name, rows=config.rows.get(name, largest if size is None else min(size, largest)))
        for name, size in sizes.items()
    )


def header_columns(
    path: str, delimiter: str, wanted: tuple[str, ...], names: dict[str, str] | None = None
) -> tuple[str, ...]:
    """Columns in the first line of a file (driver); DataError where a wanted one is not among them.

    `names` gives the file's names ours; a type behind a colon (`user_id:token`) is no part of a name.
    """
    line = read_header(path).decode("utf-8", "replace")
    found = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if names is not None:
        found = [names.get(name.partition(":")[0], name.partition(":")[0]) for name in found]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{path} has no column for {', '.join(missing)}; its first line reads {line[:500]!r}")
    require_once(path, wanted, found)
    return tuple(found)


def beside(path: str, name: str) -> str:
    """Path of another file in the folder of `path`."""
    return posixpath.join(posixpath.dirname(path), name)


def encode_text(
    span: Span, form: LineFormat, encode: Encode, schema: Schema, rejects: Rejects
) -> Iterator[EncodedBlock]:
    """Read, parse, encode and check the lines of a span (worker)."""
    for block in read_blocks(span):
        rows = parse_block(block, form)
        places = rows.lines + block.first_row
        faults = Faults(len(places))
        encoded = encode(rows.columns, places, faults)
        _reject(span, block, rows, encoded.days, faults, rejects)
        yield finish_block(schema, encoded, places, faults, block.part)


def finish_block(
    schema: Schema, encoded: Encoded, places: npt.NDArray[np.int64], faults: Faults, part: int
) -> EncodedBlock:
    """Put the good rows in the form of a part file."""
    arrow = schema.arrow()
    columns = [encoded.columns[field.name] for field in arrow]
    good = faults.good_rows()
    left_out = faults.left_out.copy()
    left_out[list(faults.reasons)] = False  # those are rejects
    num_left_out = int(left_out.sum())
    days = encoded.days
    if not good.all():
        keep = pa.array(good)
        columns = [pa.array(column).filter(keep) for column in columns]
        days, places = Days(days.codes[good], days.names), places[good]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, arrow, strict=True)]
    return EncodedBlock(pa.Table.from_arrays(arrays, schema=arrow), days, places, part, num_left_out)


def reject_beside(path: str, block: LineBlock, misfits: dict[int, str], rejects: Rejects) -> None:
    """Keep aside the lines of a file beside the rows that are wrong (worker)."""
    texts = block.data.split(b"\n")
    for line, reason in misfits.items():
        rejects.add(Reject(path, block.first_line + line, reason, readable(texts[line])))


def _reject(span: Span, block: LineBlock, rows: TextRows, days: Days, faults: Faults, rejects: Rejects) -> None:
    bad = [(line, reason, "") for line, reason in rows.misfits.items()]
    bad += [(int(rows.lines[row]), reason, days.name(row)) for row, reason in faults.reasons.items()]
    if not bad:
        return
    texts = block.data.split(b"\n")
    for line, reason, day in sorted(bad):
        text = readable(texts[line].rstrip(b"\r"))
        rejects.add(Reject(span.path, block.first_line + line, reason, text, day))
