"""Text columns as checked numbers, labels and days; the rows that hold something else are marked.

Each function looks at the whole column at once and at single values only where one of them is wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.arrow import compute as pc

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_INTEGER = r"^-?\d{1,18}$"
_INTEGER_BOUND = 10**18
_NUMBER = r"^([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|NaN)$"
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_TRUE, _FALSE = ("1", "1.0", "true", "True", "TRUE"), ("0", "0.0", "false", "False", "FALSE")
LATEST_S = 4_102_444_800
"""2100-01-01: a later timestamp is in the wrong unit."""
_LEAST_MS = 1e11
"""March 1973 in milliseconds, the year 5138 in seconds."""


class Faults:
    """The first fault of each row of a table, and the rows that are left out without one."""

    def __init__(self, num_rows: int) -> None:
        self.reasons: dict[int, str] = {}
        self.left_out: Mask = np.zeros(num_rows, bool)

    def mark(self, rows: Mask, reason: str) -> None:
        """Note `reason` for the rows where `rows` is true, `[rows]`."""
        for row in np.flatnonzero(rows):
            self.reasons.setdefault(int(row), reason)

    def good_rows(self) -> Mask:
        """Tell which rows are kept, `[rows]`."""
        good = ~self.left_out
        good[list(self.reasons)] = False
        return good


@dataclass(frozen=True)
class Days:
    """The day of each row: a number into the list of day names, -1 where it could not be read."""

    codes: npt.NDArray[np.int64]
    names: list[str]

    def name(self, row: int) -> str:
        """Name of a row's day; empty where it could not be read."""
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else ""


def to_label(column: pa.Array, faults: Faults) -> npt.NDArray[np.int8]:
    """Labels written as 0 and 1, or as booleans, `[rows]`."""
    ones, zeros = (_true(pc.is_in(column, pa.array(texts))) for texts in (_TRUE, _FALSE))
    faults.mark(~(ones | zeros), "the label is not 0 or 1")
    return ones.astype(np.int8)


def to_integers(column: pa.Array, name: str, faults: Faults, optional: bool = False) -> Floats:
    """Whole numbers of up to 15 digits as float64, `[rows]`; NaN where one is missing or wrong."""
    if not pa.types.is_integer(column.type):
        column = _cast_texts(column, pa.int64(), _INTEGER, f"{name} is not a whole number", faults)
    return _with_missing(column, name, faults, optional)


def to_floats(column: pa.Array, name: str, faults: Faults, optional: bool = False) -> Floats:
    """Numbers that fit float32, as float64, `[rows]`; NaN where one is missing (NaN is) or wrong."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        column = _cast_texts(column, pa.float64(), _NUMBER, f"{name} is not a number", faults)
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    given = ~np.isnan(values)
    faults.mark(given & ~(np.abs(values) <= _FLOAT32_MAX), f"{name} is not a number")
    if not optional:
        faults.mark(~given, f"{name} is missing")
    return values


def to_unix_seconds(column: pa.Array, name: str, milliseconds: bool, faults: Faults) -> Floats:
    """Unix seconds with their fractions, `[rows]`, of numbers or texts of (milli)seconds; NaN where one is wrong.

    Milliseconds so small that they have to be seconds are marked as well: they would all be days of January 1970.
    """
    times = (to_integers if pa.types.is_integer(column.type) else to_floats)(column, name, faults)
    if not milliseconds:
        return times
    too_small = (times > 0) & (times < _LEAST_MS)
    faults.mark(too_small, f"{name} is too small for milliseconds (unix_s is for seconds)")
    return np.where(too_small, np.nan, times / 1000.0)


def log_count(values: Floats) -> npt.NDArray[np.float32]:
    """`log(1 + max(value, 0))`, the usual transform of Criteo's counts; NaN stays NaN."""
    return np.log1p(np.maximum(values, 0)).astype(np.float32)


def to_days(column: pa.Array, name: str, parse: Callable[[str], str | None], faults: Faults) -> Days:
    """Days by a function from a text to the day's name, or to None where it is no date (called once a text)."""
    encoded = column.dictionary_encode()
    names = [parse(text) for text in encoded.dictionary.to_pylist()]
    known = sorted({day for day in names if day is not None})
    number = {day: place for place, day in enumerate(known)}
    code_of = np.array([number[day] if day is not None else -1 for day in names] + [-1])
    codes = code_of[encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    faults.mark(codes < 0, f"{name} is not a date")
    return Days(codes, known)


def to_utc_days(seconds: Floats, name: str, faults: Faults, hours: bool = False) -> Days:
    """Days (or hours, `2014-10-21T05`) of Unix timestamps, UTC; NaN is a row that is marked already."""
    out_of_range = (seconds < 0) | (seconds >= LATEST_S)
    faults.mark(out_of_range, f"{name} is out of range (Unix seconds, 1970 to 2099)")
    readable = ~(out_of_range | np.isnan(seconds))
    unit, seconds_per_unit = ("h", 3600) if hours else ("D", 86_400)
    units, places = np.unique((seconds[readable] // seconds_per_unit).astype(np.int64), return_inverse=True)
    codes = np.full(len(seconds), -1)
    codes[readable] = places
    return Days(codes, [str(day) for day in units.astype(f"datetime64[{unit}]")])


def block_days(rows: npt.NDArray[np.int64], total_rows: int, num_days: int) -> Days:
    """Days of a source without dates: the rows, by position, cut into equal blocks; needs no date to be read."""
    return Days(rows * num_days // total_rows, block_names(num_days))


def block_names(num_days: int) -> list[str]:
    """Names of numbered days: `000`, `001`, ..."""
    return [f"{day:03d}" for day in range(num_days)]


def _cast_texts(column: pa.Array, number: pa.DataType, pattern: str, reason: str, faults: Faults) -> pa.Array:
    integers = pa.types.is_integer(number)
    try:
        if not (integers and _holds_hexadecimal(column)):
            values = column.cast(number)
            if not integers or _in_bounds(values):
                return values
    except pa.ArrowInvalid:
        pass  # one of the values is wrong; which one is found below
    readable = _true(pc.match_substring_regex(column, pattern))
    faults.mark(np.asarray(column.is_valid()) & ~readable, reason)
    return pc.if_else(pa.array(readable), column, pa.scalar(None, column.type)).cast(number)


def _in_bounds(values: pa.Array) -> bool:
    bounds = pc.min_max(values)
    low, high = bounds["min"].as_py() or 0, bounds["max"].as_py() or 0
    return low > -_INTEGER_BOUND and high < _INTEGER_BOUND


def _holds_hexadecimal(column: pa.Array) -> bool:
    """Whether an `x` stands anywhere: pyarrow would read 0x1F as a number."""
    data = column.buffers()[2]
    return data is not None and bool(np.any((np.frombuffer(data, np.uint8) | 0x20) == ord("x")))


def _with_missing(column: pa.Array, name: str, faults: Faults, optional: bool) -> Floats:
    if not optional and column.null_count:
        faults.mark(np.asarray(column.is_null()), f"{name} is missing")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _true(values: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(values, False))
