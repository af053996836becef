import gzip
import json
from datetime import datetime, time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysparse.errors import DataError
from tests.data.sequences.converting import converted, sequences, shared

COLUMNS = {"user": "who", "item": "what", "time": "when"}


@pytest.mark.parametrize("packed", [False, True])
def test_text(tmp_path: Path, packed: bool) -> None:
    text = b"u1 a b c d\n\nu2\n  u3\tc  a b \r\nu1 e\nu4 \xff\n"
    path = tmp_path / ("events.txt.gz" if packed else "events.txt")
    path.write_bytes(gzip.compress(text) if packed else text)
    result = converted(tmp_path, input=str(path), format="text")
    assert sequences(result) == ["abcde", "cab"]
    assert result.faults == [
        (path.name, 2, "an empty line"),
        (path.name, 3, "a user without items"),
        (path.name, 6, "bytes that are not UTF-8"),
    ]
    assert result.manifest.rejected == {"a user without items": 1, "an empty line": 1, "bytes that are not UTF-8": 1}


def test_text_of_several_files_goes_on_from_one_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "1.txt").write_text("u1 a b c\nu2 c b a\n")
    (folder / "2.txt").write_text("u2 d\nu1 e\n")
    (folder / "notes.md").write_text("u1 z\n")
    assert sequences(converted(tmp_path, input=str(folder), format="text")) == ["abce", "cbad"]


@pytest.mark.parametrize("layout", ["100k", "1m", "csv", "atomic"])
def test_movielens(tmp_path: Path, layout: str) -> None:
    delimiter = {"1m": "::", "csv": ","}.get(layout, "\t")
    ratings = [("u1", "b", "5", "20"), ("u1", "a", "2", "10"), ("u2", "a", "4", "7"), ("u1", "c", "4.5", "40")]
    ratings += [
        ("u2", "b", "3", "8"),
        ("u2", "c", "5", "9"),
        ("u1", "d", "3", "x"),
        ("u1", "", "3", "50"),
        ("u1", "e", "1", "41"),
    ]
    lines = [delimiter.join(row) for row in ratings]
    header = {"csv": "userId,movieId,rating,timestamp", "atomic": "user_id:token\titem_id:token\trating\ttimestamp"}
    name = {"100k": "u.data", "1m": "ratings.dat", "csv": "ratings.csv", "atomic": "ml.inter"}[layout]
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / name).write_text("\n".join([header[layout], *lines] if layout in header else lines) + "\n")
    beside = {"100k": ("u.item", "u.user"), "1m": ("movies.dat", "users.dat"), "csv": ("movies.csv",)}
    for film in beside.get(layout, ("ml.item",)):
        (folder / film).write_text("movieId,title,genres\n" if layout == "csv" else "item_id\tgenre\n")
    result = converted(tmp_path, input=str(folder), format="movielens")
    assert sequences(result) == ["abce", "abc"]
    assert [fault[2] for fault in result.faults] == ["timestamp is not a number", "item is missing"]


def test_movielens_by_rating(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = ["1::a::5::1", "1::b::3::2", "1::c::4::3", "1::d::4::4", "1::e::3.5::5", "1::f::x::6", "1::g::4::6"]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    for name in ("movies.dat", "users.dat"):
        (folder / name).write_text("1::x::y\n")
    result = converted(tmp_path, input=str(folder), format="movielens", min_rating=4)
    assert sequences(result) == ["acdg"]
    assert result.manifest.left_out == {"events rated below 4.0": 2}
    assert result.faults == [("ratings.dat", 6, "rating is not a number")]


def test_amazon_csv(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(
        "u1,b,5.0,200\nu1,a,1.0,100\nu1,c,5.0,300\nu2,a,5.0\nu1,d,5.0,-4\nu1,,5.0,7\nu1,e,4.0,1588687728923\nu1,f,1,301\n"
    )
    result = converted(tmp_path, input=str(path), format="amazon")
    assert sequences(result) == ["abcf"]
    assert result.faults == [
        ("ratings.csv", 4, "3 instead of 4 columns"),
        ("ratings.csv", 5, "timestamp is out of range (1970 to 2099)"),
        ("ratings.csv", 6, "item is missing"),
        ("ratings.csv", 7, "timestamp is out of range (1970 to 2099)"),
    ]


def test_amazon_csv_of_2023_whose_thousandths_tell_the_order(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(
        "user_id,parent_asin,rating,timestamp\nu1,b,5.0,1588687728923\nu1,a,1.0,1588687728000\nu1,d,1,1588687731000\nu1,c,5,1588687730000\n"
    )
    assert sequences(converted(tmp_path, input=str(path), format="amazon")) == ["abcd"]


def test_amazon_json(tmp_path: Path) -> None:
    keys = ("reviewerID", "asin", "overall", "unixReviewTime")
    rows = [
        ("u1", "b", 5, 200),
        ("u1", "a", 1.0, 100),
        ("u1", "c", 4.0, 300),
        ("u1", "d", 5.0, 400),
        ("u1", "f", 5.0, 500),
    ]
    rows += [("", "e", 5.0, 9)]
    lines = [json.dumps({**dict(zip(keys, row, strict=True)), "style": {"size": "\u00e9"}}) for row in rows]
    wrong = ["{'asin': 1}", lines[0] + lines[1], '{"reviewerID": 7, "asin": "a", "unixReviewTime": 1}', "[1]"]
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress("\n".join([lines[0], *wrong, *lines[1:]]).encode()))
    result = converted(tmp_path, input=str(path), format="amazon", min_rating=4.0)
    assert sequences(result) == ["bcdf"]
    assert result.manifest.left_out == {"events rated below 4.0": 1}
    reason = "not one JSON object with the right kinds of values"
    assert result.faults == [
        *[("reviews.json.gz", line, reason) for line in (2, 3, 4, 5)],
        ("reviews.json.gz", 10, "reviewerID is missing"),
    ]


def test_amazon_json_of_2023(tmp_path: Path) -> None:
    rows = [{"user_id": "u1", "asin": "z", "parent_asin": item, "rating": 5.0, "timestamp": time * 1000 + 999}
            for item, time in (("c", 1588507203), ("a", 1588507201), ("b", 1588507202))]  # fmt: skip
    path = tmp_path / "reviews.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    result = converted(tmp_path, input=str(path), format="amazon", split="days")
    assert result.rows == {"2020-05-03": [(["a"], ["b", "c"])]}


def test_amazon_files_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"asin": "a"}\n')
    with pytest.raises(DataError, match=r"x\.json:1: found the keys asin; reviews have reviewerID, asin"):
        converted(tmp_path, input=str(path), format="amazon")


CHECK_INS = [
    ("2010-10-19T23:59:27", "d"),
    ("2010-10-19T23:55:27", "c"),
    ("2010-10-18T22:17:43", "b"),
    ("2010-10-17T23:42:03", "a"),
]


def test_gowalla(tmp_path: Path) -> None:
    rows = [f"{time}Z\t30.2\t-97.7\t{place}" for time, place in CHECK_INS]
    times = ["2010-13-17T23:42:03Z", "2010-02-30T00:00:00Z", "", "1969-12-31T23:59:59Z"]
    wrong = [f"{time}\t30.2\t-97.7\ta" for time in times]
    path = tmp_path / "check-ins.txt"
    path.write_text("".join(f"0\t{row}\n" for row in rows))
    assert converted(tmp_path, input=str(path), format="gowalla", split="days").rows == {
        "2010-10-18": [(["a"], ["b"])],
        "2010-10-19": [(["a", "b"], ["c", "d"])],
    }
    path.write_text("".join(f"0\t{row}\n" for row in rows + wrong))
    (tmp_path / "again").mkdir()
    result = converted(tmp_path / "again", input=str(path), format="gowalla")
    assert sequences(result) == ["abcd"]
    assert [fault[1:] for fault in result.faults] == [
        (5, "time is not a date"),
        (6, "time is not a date"),
        (7, "time is missing"),
        (8, "time is out of range (1970 to 2099)"),
    ]


DAY = [datetime(2020, 5, day, 12) for day in (3, 1, 2, 4)]


@pytest.mark.parametrize(
    ("times", "form"),
    [
        (pa.array(DAY, pa.timestamp("ns")), "unix_s"),
        (pa.array(DAY, pa.timestamp("us", "Europe/Berlin")), "date"),
        (pa.array([day.date() for day in DAY]), "unix_s"),
        (pa.array([1588507200, 1588334400, 1588420800, 1588520800], pa.int32()), "unix_s"),
        (pa.array([1588507200.5, 1588334400, 1588420800, 1588520800]), "unix_s"),
        (pa.array([1588507200999, 1588334400000, 1588420800000, 1588520800000]), "unix_ms"),
        (pa.array([1588507200003, 1588507200001, 1588507200002, 1588507200004]), "unix_ms"),
        (pa.array([1588507200.3, 1588507200.1, 1588507200.2, 1588507200.4]), "unix_s"),
        (pa.array([datetime(2020, 5, 1, 12, 0, 0, fraction) for fraction in (3, 1, 2, 4)]), "date"),
        (pa.array(["2020-05-03", "2020-05-01T12:00:00Z", "2020-05-02 12:00:00.5", "2020-06-01"]), "date"),
        (pa.array(["2020-05-03T01:00:00+02:00", "2020-05-01", "2020-05-02", "2020-05-03T00:00:00+01:00"]), "date"),
    ],
)
def test_parquet(tmp_path: Path, times: pa.Array, form: str) -> None:
    users, items = pa.array([7, 7, 7, 7]), pa.array(["c", "a", "b", "d"]).dictionary_encode()
    pq.write_table(pa.table({"who": users, "what": items, "when": times}), tmp_path / "events.parquet")
    columns = {**COLUMNS, "time_format": form}
    result = converted(tmp_path, input=str(tmp_path / "events.parquet"), format="table", columns=columns)
    assert sequences(result) == ["abcd"]


def test_events_of_one_second_are_in_order_and_are_no_repeats(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = ["d,1,1588687728900", "b,1,1588687728300", "b,1,1588687728100", "a,1,1588687727000", "z,1,1588687729"]
    path.write_text("\n".join(["what,who,when", *rows]))
    columns = {**COLUMNS, "time_format": "unix_ms"}
    result = converted(tmp_path, input=str(path), format="table", columns=columns)
    assert sequences(result) == ["abbd"]
    assert "notes" not in result.manifest.source
    assert result.faults == [("events.csv", 6, "when is too small for milliseconds (unix_s is for seconds)")]


def test_csv_table(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = ['"a",1,"x, y",10,5', "b,1,,20,5", "c,1,,later,5", "c,1,,30,4", "d,1,,40,5", "e,1,,50,5"]
    path.write_text("\n".join(["what,who,note,when,stars", *rows]))
    columns = {**COLUMNS, "rating": "stars"}
    result = converted(tmp_path, input=str(path), format="table", columns=columns, min_rating=4.5)
    assert sequences(result) == ["abde"]
    assert result.faults == [("events.csv", 4, "when is not a number")]


def test_bad_rows_of_parquet_are_counted_by_row(tmp_path: Path) -> None:
    table = pa.table({"who": ["u"] * 6, "what": ["a", None, "b", "", "c", "d"], "when": [1, 2, 3, 4, 5, 6]})
    pq.write_table(table, tmp_path / "events.parquet")
    result = converted(tmp_path, input=str(tmp_path), format="table", columns=COLUMNS)
    assert sequences(result) == ["abcd"]
    assert [fault[1:] for fault in result.faults] == [(2, "what is missing"), (4, "what is missing")]


def test_tables_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    for changes, form, message in (
        ({"what": [0.5]}, "unix_s", "what holds double; .* integers or text"),
        ({"who": [[1]]}, "unix_s", "who holds list<.*; users and items are read from integers or text"),
        ({"when": [1]}, "date", "when holds int64, no dates; set columns.time_format"),
        ({"when": [0.5]}, "date", "when holds double, no dates; set columns.time_format"),
        ({"when": [[1]]}, "unix_s", "when holds list<.*; times are read from .*: set columns.time"),
        ({"when": [time(1)]}, "date", r"when holds time64\[us\]; times are read from"),
    ):
        pq.write_table(pa.table({"who": [1], "what": ["a"], "when": [1]} | changes), path)
        with pytest.raises(DataError, match=f"^{path}: the column {message}"):
            converted(tmp_path, input=str(path), format="table", columns={**COLUMNS, "time_format": form})
        (tmp_path / "out").rmdir()
    with pytest.raises(DataError, match=r"events\.parquet has no column kind; it has"):
        converted(tmp_path, input=str(path), format="table", columns={**COLUMNS, "item": "kind"})
    (tmp_path / "out").rmdir()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"events\.parquet is no whole Parquet file"):
        converted(tmp_path, input=str(path), format="table", columns=COLUMNS)


def test_damaged_and_empty_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"u a b c\n" * 5000)[:-20])
    with pytest.raises(DataError, match=r"x\.txt\.gz is cut off or damaged"):
        converted(tmp_path, input=str(path), format="text")
    path.write_bytes(gzip.compress(b""))
    (tmp_path / "out").rmdir()
    with pytest.raises(DataError, match=r"x\.txt\.gz holds no rows"):
        converted(tmp_path, input=str(path), format="text")
    with pytest.raises(DataError, match="found no file of this source"):
        converted(tmp_path / "out", input=str(tmp_path / "nowhere"), format="text")


def test_too_many_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("u1 a b c d\n" + "u2\n" * 4)
    with pytest.raises(DataError, match=r"more than 3 rows.*\n.*x\.txt:2: a user without items"):
        converted(tmp_path, input=str(tmp_path / "x.txt"), format="text", max_bad_rows=3)
    assert (tmp_path / "out" / "rejects").exists()


def test_real_beauty(tmp_path: Path) -> None:
    result = converted(tmp_path, input=f"{shared('amazon-beauty')}/Beauty.txt.gz", format="text")
    assert {day.day: day.rows for day in result.manifest.days} == dict.fromkeys(("train", "validation", "test"), 22_363)
    assert len(result.counts) == 12_101
    assert sum(len(history) + len(targets) for history, targets in result.rows["test"]) == 198_502
    assert sum(result.counts.values()) == 198_502 - 2 * 22_363
    assert result.rows["test"][1] == (["6", "7", "8", "9", "10", "4"], ["11"])
    assert result.rows["validation"][0] == (["1", "2", "3"], ["4"])
    assert result.rows["train"][0] == (["1"], ["2", "3"])
    assert result.manifest.left_out == {}


def test_real_ratings(tmp_path: Path) -> None:
    result = converted(tmp_path, input=shared("ml-100k"), format="movielens", split="days", max_history=20)
    assert len(result.counts) == 1_682
    assert sum(result.counts.values()) == 100_000
    # Every event is a target but the first one of each user.
    assert sum(len(targets) for rows in result.rows.values() for _, targets in rows) == 100_000 - 943
    assert list(result.rows) == sorted(result.rows)
    assert max(len(history) for rows in result.rows.values() for history, _ in rows) == 20
