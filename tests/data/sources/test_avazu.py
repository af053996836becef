import gzip
from pathlib import Path

import pytest

from raysparse.data.sources import open_source
from raysparse.data.sources.avazu import AvazuConfig
from raysparse.errors import DataError
from tests.data.sources.reading import id_of, read_source, shared

HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def row(click: str = "0", hour: str = "14102100") -> str:
    return f"1000,{click},{hour},1005,0,s,sd,sc,a,ad,ac,d,ip,m,1,0,15704,320,50,1722,0,35,-1,79"


def write(folder: Path, *rows: str) -> str:
    path = folder / "train.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return str(path)


def test_values_and_days(tmp_path: Path) -> None:
    path = write(tmp_path, row("1", "14102105"), row("0", "14102123"), row("0", "14102200"))
    reading = read_source(AvazuConfig(input=path))
    assert reading.column("label") == [1, 0, 0]
    assert reading.days == ["2014-10-21", "2014-10-21", "2014-10-22"]
    assert reading.column("C20") == [id_of("-1", 1000)] * 3
    assert reading.column("site_id") == [id_of("s", 100_000)] * 3
    assert reading.column("hour_of_day") == [id_of(hour, 1000) for hour in ("05", "23", "00")]
    assert reading.column("weekday") == [id_of(day, 1000) for day in ("2", "2", "3")]
    assert "id" not in reading.table.column_names
    hourly = read_source(AvazuConfig(input=str(tmp_path), unit="hour"))
    assert hourly.days == ["2014-10-21T05", "2014-10-21T23", "2014-10-22T00"]


def test_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path, row(), row(hour="14102124"), row(hour="20141021"), row(click="yes"), row() + ",8", row())
    reading = read_source(AvazuConfig(input=path))
    assert reading.faults() == [
        (3, "hour is not a date"),
        (4, "hour is not a date"),
        (5, "the label is not 0 or 1"),
        (6, "25 instead of 24 columns"),
    ]
    assert [reject.day for reject in reading.rejects] == ["", "", "2014-10-21", ""]
    assert reading.table.num_rows == 2


def test_a_file_without_labels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(HEADER.replace("click,", "") + "\n")
    with pytest.raises(DataError, match=r"test\.csv has no column for click"):
        open_source(AvazuConfig(input=str(path))).spans()


def test_real_rows() -> None:
    folder = shared("avazu_head9k")
    reading = read_source(AvazuConfig(input=folder, unit="hour"))
    assert reading.rejects == []
    assert set(reading.days) == {"2014-10-21T00"}
    with gzip.open(f"{folder}/train.csv.gz", "rt") as file:
        lines = file.read().splitlines()[1:]
    assert reading.column("label") == [int(line.split(",")[1]) for line in lines]
    assert reading.column("device_ip") == [id_of(line.split(",")[12], 100_000) for line in lines]
