"""Columns of a file as checked events; the rows that hold something else are marked, and kept aside."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import TextRows
from raysparse.data.fields import LATEST_S, Faults, to_floats, to_unix_seconds
from raysparse.data.lines import LineBlock, cut_file, read_blocks
from raysparse.data.rejects import Reject, Rejects, readable
from raysparse.data.sequences.events import MICROSECONDS, EventBlock, Times, coded
from raysparse.errors import DataError


@dataclass(frozen=True)
class EventRule:
    """Which columns of a file are an event, and how they are read."""

    user: str
    item: str
    time: str
    time_format: Literal["unix_s", "unix_ms", "date"] = "unix_s"
    rating: str = ""
    """Column of the ratings; empty where they are not read."""
    min_rating: float = 0.0

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(dict.fromkeys(name for name in (self.user, self.item, self.time, self.rating) if name))

    def events(self, columns: dict[str, pa.Array], faults: Faults) -> EventBlock:
        """Read columns `[rows]` of text, numbers or dates as events; rows at fault are marked and left out."""
        users, items = (_names(columns[name], name, faults) for name in (self.user, self.item))
        times = to_times(columns[self.time], self.time, self.time_format, faults)
        if self.rating:
            low = to_floats(columns[self.rating], self.rating, faults) < self.min_rating
            low[list(faults.reasons)] = False
            faults.left_out = low
        good = faults.good_rows()
        keep = pa.array(good)
        num_low_rated = int(np.count_nonzero(faults.left_out))
        return EventBlock(coded(users.filter(keep)), coded(items.filter(keep)), times[good], num_low_rated)


def read_lines(path: str, columns: tuple[str, ...] = ()) -> Iterator[LineBlock]:
    """Read the lines of a text file (driver), numbered; `columns` are the names in its header, where it has one.

    DataError where the file is damaged or holds no rows.
    """
    line = first_line = 2 if columns else 1
    for span in cut_file(path, columns):
        for block in read_blocks(replace(span, first_line=line)):
            yield block
            line = block.first_line + block.num_lines
    if line == first_line:
        raise DataError(f"{path} holds no rows; replace the file, or leave it out of `input`")


def line_events(
    path: str,
    blocks: Iterable[LineBlock],
    parse: Callable[[LineBlock], TextRows],
    rule: EventRule,
    rejects: Rejects,
) -> Iterator[EventBlock]:
    """Read the events of a text file (driver) with a function from its lines to columns."""
    for block in blocks:
        rows = parse(block)
        faults = Faults(len(rows.lines))
        events = rule.events(rows.columns, faults)
        wrong = {int(rows.lines[row]): reason for row, reason in faults.reasons.items()}
        reject_lines(path, block, rows.misfits | wrong, rejects)
        yield events


def reject_lines(path: str, block: LineBlock, reasons: dict[int, str], rejects: Rejects) -> None:
    """Keep lines of a block aside, by their place in it (driver)."""
    if not reasons:
        return
    texts = block.data.split(b"\n")
    for line, reason in sorted(reasons.items()):
        rejects.add(Reject(path, block.first_line + line, reason, readable(texts[line].rstrip(b"\r"))))


def to_times(column: pa.Array, name: str, form: Literal["unix_s", "unix_ms", "date"], faults: Faults) -> Times:
    """Read times as microseconds since 1970, `[rows]`: dates of Parquet as they are, all else by its format."""
    seconds = _date_seconds(column, name, form == "date", faults)
    if seconds is None:
        seconds = to_unix_seconds(column, name, form == "unix_ms", faults)
    out_of_range = (seconds < 0) | (seconds >= LATEST_S)
    faults.mark(out_of_range, f"{name} is out of range (1970 to 2099)")
    # A float64 tells microseconds apart until 2100.
    return np.rint(np.where(out_of_range | np.isnan(seconds), 0, seconds) * MICROSECONDS).astype(np.int64)


def _date_seconds(column: pa.Array, name: str, is_date: bool, faults: Faults) -> npt.NDArray[np.float64] | None:
    """Read dates as seconds, NaN where one is missing or wrong; None where the column holds none."""
    if pa.types.is_temporal(column.type):
        dates = column.cast(pa.timestamp("us"), safe=False)
    elif is_date:
        dates = _parse_dates(column, name, faults)
    else:
        return None
    faults.mark(np.asarray(column.is_null()), f"{name} is missing")
    values = dates.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values / MICROSECONDS


def _parse_dates(texts: pa.Array, name: str, faults: Faults) -> pa.Array:
    try:
        return pc.replace_substring_regex(texts, r"Z$", "").cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        pass  # one of them is wrong or has a zone; which one is found below
    encoded = texts.dictionary_encode()
    dates = pa.array([_parse_date(text) for text in encoded.dictionary.to_pylist()], pa.timestamp("us"))
    parsed = dates.take(encoded.indices)
    faults.mark(np.asarray(pc.and_(parsed.is_null(), texts.is_valid())), f"{name} is not a date")
    return parsed


def _parse_date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo is None else date.astimezone(UTC).replace(tzinfo=None)


def _names(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    texts = column.cast(pa.string())
    faults.mark(~np.asarray(pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)), f"{name} is missing")
    return texts
