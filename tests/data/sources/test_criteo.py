import gzip
import math
from pathlib import Path

import pytest

from raysparse.data.lines import count_rows
from raysparse.data.sources import open_source
from raysparse.data.sources.criteo import COUNTS, IDS, Criteo1tbConfig, CriteoKaggleConfig
from raysparse.errors import ConfigError, DataError
from tests.data.sources.reading import cut_spans, id_of, read_source, shared

ROW = "\t".join(["1", *("3" for _ in COUNTS), *("68fd1e64" for _ in IDS)])
SPARSE_ROW = "\t".join(["0", "", "-2", *("" for _ in COUNTS[2:]), *("" for _ in IDS)])


def test_values_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(f"{ROW}\n{SPARSE_ROW}\n")
    reading = read_source(CriteoKaggleConfig(input=str(tmp_path), rows_per_table=1000, num_days=2))
    assert reading.rejects == []
    assert reading.column("label") == [1, 0]
    assert reading.column("I1") == [pytest.approx(math.log(4)), pytest.approx(math.nan, nan_ok=True)]
    assert reading.column("I2") == [pytest.approx(math.log(4)), 0.0]
    assert reading.column("C26") == [id_of("68fd1e64", 1000), 0]
    assert reading.days == ["000", "001"]


def test_schema() -> None:
    schema = open_source(CriteoKaggleConfig(input="x", rows_per_table=50, rows={"C3": 7})).schema()
    assert [feature.name for feature in schema.dense] == list(COUNTS)
    assert all(feature.optional for feature in schema.dense)
    assert {feature.name: feature.rows for feature in schema.ids} == {**dict.fromkeys(IDS, 50), "C3": 7}
    with pytest.raises(ConfigError, match="rows: unknown feature C27"):
        open_source(CriteoKaggleConfig(input="x", rows={"C27": 7})).schema()


def test_bad_rows_cost_themselves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        3: (ROW.replace("1", "2", 1), "the label is not 0 or 1"),
        5: (ROW + "\tmore", "41 instead of 40 columns"),
        6: (ROW.rsplit("\t", 1)[0], "39 instead of 40 columns"),
        9: (ROW.replace("3", "x3", 1), "I1 is not a whole number"),
        12: ("", "an empty line"),
    }
    rows = [bad[line][0].encode() if line in bad else ROW.encode() for line in range(1, 21)]
    rows[13] = ROW.encode().replace(b"68", b"\xff\xfe", 1)
    expected = sorted([(line, reason) for line, (_, reason) in bad.items()] + [(14, "bytes that are not UTF-8")])
    path = tmp_path / "train.txt"
    path.write_bytes(b"\n".join(rows))
    for num_bytes in (10**6, 700, 100):
        cut_spans(monkeypatch, num_bytes)
        reading = read_source(CriteoKaggleConfig(input=str(path), num_days=5))
        assert reading.faults() == expected
        assert reading.table.num_rows == 14
        # Days are blocks of four lines, bad ones counted: no row's day depends on what other rows hold.
        assert [reading.days.count(day) for day in ("000", "001", "002", "003", "004")] == [3, 2, 2, 3, 4]
    assert next(row for row in reading.rejects if row.line == 14).text.startswith("1\t3")
    assert "\\xff\\xfe" in next(row for row in reading.rejects if row.line == 14).text


def test_a_file_cut_in_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"{ROW}\n{ROW}\n{ROW[:100]}")
    reading = read_source(CriteoKaggleConfig(input=str(path), num_days=1))
    assert reading.table.num_rows == 2
    assert [line for line, _ in reading.faults()] == [3]


def test_one_day_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "day_10").write_text(f"{ROW}\n" * 3)
    (tmp_path / "day_2.gz").write_bytes(gzip.compress(f"{SPARSE_ROW}\n".encode() * 2))
    (tmp_path / "notes.txt").write_text("not a day")
    cut_spans(monkeypatch, 150)
    config = Criteo1tbConfig(input=str(tmp_path))
    reading = read_source(config)
    assert reading.days == ["002"] * 2 + ["010"] * 3
    assert reading.column("label") == [0, 0, 1, 1, 1]
    source = open_source(config)
    assert source.expected_days(source.spans()) == ["002", "010"]
    (tmp_path / "day_002").write_text(f"{ROW}\n")
    with pytest.raises(DataError, match="are the same day"):
        open_source(config).spans()


def test_a_day_file_of_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(ROW)
    with pytest.raises(DataError, match="not named day_N"):
        open_source(Criteo1tbConfig(input=str(tmp_path / "*.txt"))).spans()


def test_a_cut_gz_is_found_by_the_first_pass(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{ROW}{row}\n" for row in range(2000)).encode())
    (tmp_path / "day_0.gz").write_bytes(whole[:-100])
    (span,) = open_source(Criteo1tbConfig(input=str(tmp_path))).spans()
    with pytest.raises(DataError, match=r"day_0\.gz is cut off or damaged"):
        count_rows(span)


def test_real_rows() -> None:
    folder = shared("criteo_kaggle_head8k")
    reading = read_source(CriteoKaggleConfig(input=f"{folder}/*.csv.gz"))
    assert reading.rejects == []
    assert reading.table.num_rows == 8000
    assert sum(reading.column("label")) == 1728
    assert [reading.days.count(f"{day:03d}") for day in range(7)] == [1143, 1143, 1143, 1143, 1143, 1143, 1142]
    with gzip.open(f"{folder}/dev.csv.gz", "rt") as file:
        first = file.readline().rstrip("\n").split("\t")
    row = reading.table.slice(0, 1).to_pylist()[0]
    for name, text in zip(IDS, first[14:], strict=True):
        assert row[name] == (id_of(text, 100_000) if text else 0)
    for name, text in zip(COUNTS, first[1:14], strict=True):
        assert row[name] == pytest.approx(math.log1p(max(int(text), 0)) if text else math.nan, nan_ok=True)
