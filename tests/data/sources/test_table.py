import math
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysparse.config import check
from raysparse.data.schema import DenseFeature, IdFeature
from raysparse.data.sources import open_source
from raysparse.data.sources.table import TableConfig
from raysparse.errors import ConfigError, DataError
from tests.data.sources.reading import cut_spans, id_of, read_source


def config(path: Path, **changes: Any) -> TableConfig:
    tree: dict[str, Any] = {
        "source": "table",
        "input": str(path),
        "label": {"column": "clicked"},
        "day": {"column": "when"},
        "dense": [
            {"column": "price", "transform": "log1p", "optional": True},
            {"column": "age", "shift": 40.0, "scale": 10.0},
        ],
        "ids": [
            {"column": "user", "rows": 500, "table": "people"},
            {"column": "seller", "rows": 500, "table": "people"},
            {"column": "tags", "rows": 50, "multi_valued": True, "separator": " "},
        ],
    }
    return check(TableConfig, tree | changes, "the test")


CSV = (
    "when,clicked,price,age,user,seller,tags,unused\n"
    '2013-02-01,1,9,50,7,"a, b",x y,u\n'
    "2013-01-31,0,,30,a,,,u\n"
    "2013-02-01 13:30:00,0,-3,40,7,7,y,u\n"
)


def test_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    for num_bytes in (10**6, 30):
        cut_spans(monkeypatch, num_bytes)
        reading = read_source(config(path))
        assert reading.rejects == []
        assert reading.days == ["2013-02-01", "2013-01-31", "2013-02-01"]
        assert reading.column("label") == [1, 0, 0]
        assert reading.column("price") == [pytest.approx(math.log(10)), pytest.approx(math.nan, nan_ok=True), 0]
        assert reading.column("age") == [1, -1, 0]
        assert reading.column("user") == [id_of("7", 500), id_of("a", 500), id_of("7", 500)]
        assert reading.column("seller") == [id_of("a, b", 500), 0, id_of("7", 500)]
        assert reading.column("tags") == [[id_of("x", 50), id_of("y", 50)], [], [id_of("y", 50)]]
    schema = open_source(config(path)).schema()
    assert schema.dense == (DenseFeature(name="price", optional=True), DenseFeature(name="age"))
    assert schema.ids[1] == IdFeature(name="seller", rows=500, table="people")


def test_parquet_reads_as_csv(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    table = pa.table(
        {
            "when": pa.array([date(2013, 2, 1), date(2013, 1, 31), date(2013, 2, 1)]),
            "clicked": pa.array([1, 0, 0], pa.int64()),
            "price": pa.array([9.0, None, -3.0]),
            "age": pa.array([50, 30, 40], pa.int16()),
            "user": pa.array(["7", "a", "7"]).dictionary_encode(),
            "seller": pa.array(["a, b", "", "7"]),
            "tags": pa.array([["x", "y"], None, ["y"]]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    from_csv, from_parquet = (read_source(config(tmp_path / name)) for name in ("rows.csv", "rows.parquet"))
    assert from_parquet.table.drop(["price"]).equals(from_csv.table.drop(["price"]))
    assert from_parquet.days == from_csv.days


def test_integer_ids_hash_as_their_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"t": [datetime(2013, 1, 1, 5)], "y": [True], "u": [123456789012345678], "l": [[1, 2]]})
    pq.write_table(table, path)
    reading = read_source(
        config(
            path,
            label={"column": "y"},
            day={"column": "t", "unit": "hour"},
            dense=[],
            ids=[{"column": "u", "rows": 900}, {"column": "l", "rows": 90, "multi_valued": True}],
        )
    )
    assert reading.column("label") == [1]
    assert reading.days == ["2013-01-01T05"]
    assert reading.column("u") == [id_of("123456789012345678", 900)]
    assert reading.column("l") == [[id_of("1", 90), id_of("2", 90)]]


@pytest.mark.parametrize(
    ("rule", "text", "day"),
    [
        ({"format": "unix_s"}, "1413867600", "2014-10-21"),
        ({"format": "unix_ms", "unit": "hour"}, "1413867600123", "2014-10-21T05"),
        ({"format": "%d/%m/%Y"}, "21/10/2014", "2014-10-21"),
        ({"format": "name"}, "week-07", "week-07"),
    ],
)
def test_formats_of_days(tmp_path: Path, rule: dict[str, str], text: str, day: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"when,clicked,user\n{text},1,7\n")
    reading = read_source(config(path, day={"column": "when"} | rule, dense=[], ids=[{"column": "user"}]))
    assert reading.days == [day]


def test_a_threshold_label(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("when,stars,user\n2013-01-01,3.9,7\n2013-01-01,4,7\n2013-01-01,,7\n")
    label = {"column": "stars", "threshold": 4.0}
    reading = read_source(config(path, label=label, dense=[], ids=[{"column": "user"}]))
    assert reading.column("label") == [0, 1]
    assert reading.faults() == [(4, "stars is missing")]


def test_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        CSV + "2013-02-30,1,9,50,7,8,,u\n2013-02-01,2,9,50,7,8,,u\n2013-02-01,1,9,,7,8,,u\n2013-02-01,1,x,5,7,8,,u\n"
        '2013-02-01,1,9,50,7,"8,,u\n2013-02-01,1,9,50,7,8,,u\n'
    )
    reading = read_source(config(path))
    assert reading.faults() == [
        (5, "when is not a date"),
        (6, "the label is not 0 or 1"),
        (7, "age is missing"),
        (8, "price is not a number"),
        (9, "a quote that is not closed"),
    ]
    assert reading.table.num_rows == 4


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"when": ["2013-01-01", "x", "2013-01-02"], "clicked": [1, 0, None], "user": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=1)
    reading = read_source(config(path, dense=[], ids=[{"column": "user"}]))
    assert reading.faults() == [(2, "when is not a date"), (3, "the label is not 0 or 1")]
    assert "'user': 3" in reading.rejects[1].text


def test_ids_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"when": ["2013-01-01"], "clicked": [1], "user": [7.0]}), path)
    with pytest.raises(DataError, match=f"{path}: the id column user holds double; write it as"):
        read_source(config(path, dense=[], ids=[{"column": "user"}]))


def test_columns_of_other_types_are_named_with_what_to_set(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for changes, message in (
        ({"user": [[7, 8]]}, r"the id column user holds list<.*int64>; set multi_valued: true for it under `ids`"),
        ({"clicked": [[1]]}, "the column clicked holds list<.*>; lists can be read under `ids` alone"),
        ({"user": [{"x": 7}]}, "the column user holds struct<.*>; numbers, text, dates and lists of numbers or text"),
        ({"user": [[{"x": 7}]]}, "the column user holds list<.*struct<.*>; numbers, text, dates and lists"),
        ({"user": [b"7"]}, "the column user holds binary; numbers, text, dates"),
    ):
        pq.write_table(pa.table({"when": ["2013-01-01"], "clicked": [1], "user": [7]} | changes), path)
        with pytest.raises(DataError, match=rf"^{path}: {message}"):
            open_source(config(path, dense=[], ids=[{"column": "user"}])).spans()


@pytest.mark.parametrize("form", ["unix_s", "unix_ms"])
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64()], ids=str)
def test_unix_times_may_be_any_numbers(tmp_path: Path, form: str, kind: pa.DataType) -> None:
    path = tmp_path / "rows.parquet"
    scale = 1000 if form == "unix_ms" else 1
    times = pa.array([1413867600 * scale, None, -scale, 2**33 * scale]).cast(kind, safe=False)
    pq.write_table(pa.table({"when": times, "clicked": [1] * 4, "user": [1, 2, 3, 4]}), path)
    reading = read_source(config(path, day={"column": "when", "format": form}, dense=[], ids=[{"column": "user"}]))
    assert reading.days == ["2014-10-21"]
    assert [line for line, _ in reading.faults()] == [2, 3, 4]
    assert {reason.split(" (")[0] for _, reason in reading.faults()} == {"when is missing", "when is out of range"}


def test_seconds_that_are_said_to_be_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("when,clicked,user\n1413867600,1,7\n1413867600000,1,7\n")
    day = {"column": "when", "format": "unix_ms"}
    reading = read_source(config(path, day=day, dense=[], ids=[{"column": "user"}]))
    assert reading.days == ["2014-10-21"]
    assert reading.faults() == [(2, "when is too small for milliseconds (unix_s is for seconds)")]


def test_texts_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("when,clicked,user\n2013-01-01,yes,7\n2013-01-01,no,7\n2013-01-01,maybe,7\n")
    label = {"column": "clicked", "positive": ["yes", "y"], "negative": ["no"]}
    reading = read_source(config(path, label=label, dense=[], ids=[{"column": "user"}]))
    assert reading.column("label") == [1, 0]
    assert reading.faults() == [(4, "the label is none of the texts for 1 and 0")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_missing_column_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        path.write_text("when,clicked,price,age,user,seller\n")
    else:
        pq.write_table(pa.table({"when": ["x"]}), path)
    with pytest.raises(DataError, match=rf"rows\.{suffix} has no column .*tags"):
        open_source(config(path)).spans()


def test_a_cut_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"when": ["x"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows\.parquet is no whole Parquet file"):
        open_source(config(path)).spans()


def test_contradictions_in_the_mapping_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        config(tmp_path, label={"column": "y", "positive": ["1"], "negative": ["0"], "threshold": 1.0})
    with pytest.raises(ConfigError, match="given together"):
        config(tmp_path, label={"column": "y", "positive": ["1"]})
    with pytest.raises(ConfigError, match="under `ids`"):
        open_source(config(tmp_path, rows={"user": 5}))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"ids": [{"column": "u", "rows": 1000, "table": "t"}, {"column": "v", "table": "t"}]},
            "one size for the shared table 't'; found 1,000 and 100,000 rows",
        ),
        ({"dense": [{"column": "user"}]}, "stand there once and are not called label or day; found user"),
        ({"ids": [{"column": "label"}]}, "are not called label or day; found label"),
        ({"rows": {"user": 5}}, "give `rows` of the column under `ids`"),
        ({"rows": {"user": 1}}, "rows.user: found 1; allowed: greater than or equal to 2"),
    ],
)
def test_features_that_cannot_be_are_faults_of_the_job(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        config(tmp_path, **changes)


def test_hours_with_a_zone_are_those_of_utc(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    stamps = ("2013-01-01T23:30:00-05:00", "2013-01-02T00:30:00+00:00", "2013-01-02T03:30:00")
    path.write_text("when,clicked,user\n" + "".join(f"{stamp},1,u\n" for stamp in stamps))
    day = {"column": "when", "unit": "hour"}
    reading = read_source(config(path, dense=[], ids=[{"column": "user"}], day=day))
    assert reading.days == ["2013-01-02T04", "2013-01-02T00", "2013-01-02T03"]


def test_numbered_days_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"when": [10, 2, 1], "clicked": [1, 0, 1], "user": ["a", "b", "c"]}), path)
    day = {"column": "when", "format": "number"}
    reading = read_source(config(path, dense=[], ids=[{"column": "user"}], day=day))
    assert reading.days == ["00000010", "00000002", "00000001"]


def test_a_header_may_quote_the_delimiter_and_names_a_column_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('clicked,when,"user, paid"\n1,2013-01-01,7\n')
    plain = {"dense": [], "ids": [{"column": "user, paid", "rows": 500}]}
    assert read_source(config(path, **plain)).column("user, paid") == [id_of("7", 500)]
    path.write_text("clicked,when,user,user\n1,2013-01-01,7,8\n")
    plain = {"dense": [], "ids": [{"column": "user"}]}
    with pytest.raises(DataError, match="more than one column user"):
        read_source(config(path, **plain))
    path = tmp_path / "rows.parquet"
    columns = [pa.array([1]), pa.array(["2013-01-01"]), pa.array(["7"]), pa.array(["8"])]
    pq.write_table(pa.Table.from_arrays(columns, ["clicked", "when", "user", "user"]), path)
    with pytest.raises(DataError, match="more than one column user"):
        read_source(config(path, **plain))


def test_large_numbers_and_missing_ones_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = {"when": ["2013-01-01"] * 2, "clicked": [True, False], "user": ["a", "b"]}
    pq.write_table(pa.table({**table, "price": [2**60, 1], "age": [math.nan, 3.0]}), path)
    dense = [{"column": "price"}, {"column": "age", "optional": True}]
    reading = read_source(config(path, dense=dense, ids=[{"column": "user"}]))
    assert reading.rejects == []
    assert reading.column("price") == [2.0**60, 1.0]
    assert reading.column("age") == [pytest.approx(math.nan, nan_ok=True), 3.0]
    reading = read_source(config(path, dense=[{"column": "age"}], ids=[{"column": "user"}]))
    assert [reject.reason for reject in reading.rejects] == ["age is missing"]


def test_a_type_that_is_no_text_and_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    uuids = pa.array([b"0123456789abcdef"], pa.binary(16))
    pq.write_table(pa.table({"when": ["2013-01-01"], "clicked": [1], "user": uuids}), path)
    with pytest.raises(DataError, match=r"the column user holds fixed_size_binary\[16\]; numbers, text, dates"):
        read_source(config(path, dense=[], ids=[{"column": "user"}]))


def test_unix_times_and_booleans_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("when,clicked,user\n1400000000.0,True,u\n1400000000.25,false,u\n1400000000,1.0,u\n")
    day = {"column": "when", "format": "unix_s"}
    reading = read_source(config(path, dense=[], ids=[{"column": "user"}], day=day))
    assert reading.rejects == []
    assert reading.days == ["2014-05-13"] * 3
    assert reading.column("label") == [1, 0, 1]
