import gzip
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysparse.config import Config, check
from raysparse.data import drift, lines
from raysparse.data.dataset import Dataset, Day, write_manifest
from raysparse.data.lines import Span
from raysparse.data.rejects import Reject
from raysparse.data.sources import DriftConfig, PrepareConfig, criteo, open_source
from raysparse.data.sources.criteo import Criteo1tbConfig, CriteoKaggleConfig
from raysparse.data.sources.flights import FlightsConfig
from raysparse.data.sources.movielens import MovielensConfig
from raysparse.data.sources.table import DayColumn, IdColumn, LabelColumn, TableConfig
from raysparse.data.staging import UNFINISHED
from raysparse.errors import DataError
from raysparse.launch import prepare as prepare_module
from raysparse.launch import tasks
from raysparse.launch.prepare import _check_days, prepare

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ML_100K = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ml-100k"


class AnyPrepare(Config):
    """What the command reads."""

    prepare: PrepareConfig


def criteo_row(number: int) -> str:
    counts = [str(number % 5), "", *(str(number % k) for k in range(2, 13))]
    return "\t".join([str(number % 3 == 0 and 1 or 0), *counts, *(f"{number * k % 97:08x}" for k in range(26))])


def write_criteo(folder: Path, num_rows: int, bad: dict[int, str] | None = None) -> CriteoKaggleConfig:
    """`train.txt` with some of its lines, by number from 1, replaced."""
    folder.mkdir(exist_ok=True)
    rows = [(bad or {}).get(line, criteo_row(line)) for line in range(1, num_rows + 1)]
    (folder / "train.txt").write_text("\n".join(rows) + "\n")
    return CriteoKaggleConfig(input=str(folder), num_days=3, rows_per_table=1000)


def cut_in_spans(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    def cut(path: str) -> list[Span]:
        return lines.cut_file(path, (), num_bytes)

    monkeypatch.setattr(criteo, "cut_file", cut)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_all(folder: Path, name: str) -> list:
    """A column over all days and files, in the order of the manifest."""
    dataset = Dataset.open(str(folder))
    return [
        value
        for day in dataset.days
        for file in day.files
        for value in pq.ParquetFile(dataset.url(file.path)).read([name])[name].to_pylist()
    ]


def test_ordered_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_in_spans(monkeypatch, 5000)
    bad = {7: "1\t2", 50: criteo_row(50).replace("0", "9", 1), 51: ""}
    config = write_criteo(tmp_path / "raw", 90, bad)
    manifest = prepare(config, str(tmp_path / "out"))
    assert [day.day for day in manifest.days] == ["000", "001", "002"]
    assert [day.rows for day in manifest.days] == [29, 28, 30]
    assert manifest.rejected == {"2 instead of 40 columns": 1, "an empty line": 1, "the label is not 0 or 1": 1}
    assert manifest.source == config.model_dump(mode="json")
    assert manifest.data_schema == open_source(config).schema()
    assert Dataset.open(str(tmp_path / "out")).manifest == manifest
    # All good rows are there, once and in order: the label and an id say which row it is.
    good = [number for number in range(1, 91) if number not in bad]
    assert read_all(tmp_path / "out", "label") == [int(number % 3 == 0) for number in good]
    assert [day.positives for day in manifest.days] == [
        sum(number % 3 == 0 for number in good if 30 * day < number <= 30 * day + 30) for day in range(3)
    ]
    for day in manifest.days:
        assert len(day.files) > 1
        for file in day.files:
            written = pq.ParquetFile(tmp_path / "out" / file.path)
            assert written.schema_arrow.equals(manifest.data_schema.arrow())
            assert written.metadata.num_rows == file.rows
            assert (tmp_path / "out" / file.path).stat().st_size == file.num_bytes
    rejects = [
        json.loads(line)
        for path in sorted((tmp_path / "out" / "rejects").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert [(row["line"], row["day"]) for row in rejects] == [(7, ""), (50, "001"), (51, "")]
    assert rejects[0]["text"] == "1\t2"
    assert rejects[0]["file"] == str(tmp_path / "raw" / "train.txt")
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_same_bytes_whatever_the_tasks_at_a_time_and_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_in_spans(monkeypatch, 3000)
    config = write_criteo(tmp_path / "raw", 60, {5: "bad", 31: "worse"})
    prepare(config, str(tmp_path / "two"))
    items, run = tasks.task_items, tasks.run_tasks
    for module in (tasks, prepare_module):
        monkeypatch.setattr(module, "task_items", lambda every: items(every).repartition(1))
    prepare(config, str(tmp_path / "one"))
    for order in (list, lambda results: list(results)[::-1]):
        monkeypatch.setattr(prepare_module, "run_tasks", lambda *call, order=order: iter(order(run(*call))))
        prepare(config, str(tmp_path / "last first"), overwrite=True)
        assert digests(tmp_path / "one") == digests(tmp_path / "last first")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert len(digests(tmp_path / "one")) > 6


def test_unordered_source(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    seconds = [86_400 * (row * 5 % 7) + row for row in range(500)]
    ratings = "".join(f"{row}::{row % 3}::{row % 5 + 1}::{second}\n" for row, second in enumerate(seconds))
    (tmp_path / "raw" / "ratings.dat").write_text(ratings + "1::1::9::0\n")
    (tmp_path / "raw" / "movies.dat").write_text("0::A (1990)::X|Y\n1::B (1991)::Z\nwrong\n")
    (tmp_path / "raw" / "users.dat").write_text("7::M::24::technician::85711\n")
    config = MovielensConfig(input=str(tmp_path / "raw"))
    manifest = prepare(config, str(tmp_path / "out"))
    assert [day.day for day in manifest.days] == [f"1970-01-0{day}" for day in range(1, 8)]
    assert [len(day.files) for day in manifest.days] == [1] * 7
    assert manifest.rejected == {"1 instead of 3 columns": 1, "rating is not above 0 and up to 5": 1}
    # Within a day, rows are in the order of the file.
    order = sorted(range(500), key=lambda row: (seconds[row] // 86_400, row))
    assert read_all(tmp_path / "out", "label") == [int(row % 5 >= 3) for row in order]
    assert [len(genres) for genres in read_all(tmp_path / "out", "genres")] == [(2, 1, 0)[row % 3] for row in order]
    first = manifest.days[0].files[0]
    assert pq.ParquetFile(tmp_path / "out" / first.path).schema_arrow.equals(manifest.data_schema.arrow())
    prepare(config, str(tmp_path / "again"))
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_too_many_bad_rows_stop_the_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_in_spans(monkeypatch, 3000)
    config = write_criteo(tmp_path / "raw", 60, {5: "bad", 31: "worse", 58: "2\t2"})
    output = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        prepare(config.model_copy(update={"max_bad_rows": 2}), str(output))
    assert f"{tmp_path}/raw/train.txt:5: 1 instead of 40 columns" in str(caught.value)
    assert "`max_bad_rows`" in str(caught.value)
    assert sorted((output / "rejects").iterdir())
    with pytest.raises(DataError, match="no finished data set"):
        Dataset.open(str(output))
    # What was left half-written is cleaned, and the same folder is filled with the limit raised.
    manifest = prepare(config.model_copy(update={"max_bad_rows": 3}), str(output))
    assert sum(day.rows for day in manifest.days) == 57
    assert sum(manifest.rejected.values()) == 3


def test_too_many_bad_rows_of_an_unordered_source(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::9\n" + "1::1::x::9\n" * 4)
    (tmp_path / "movies.dat").write_text("1::A (1990)::X\n")
    (tmp_path / "users.dat").write_text("1::M::24::technician::85711\n")
    with pytest.raises(DataError, match=r"more than 2 rows.*\n.*ratings\.dat:2: rating is not a number"):
        prepare(MovielensConfig(input=str(tmp_path), max_bad_rows=2), str(tmp_path / "out"))


def test_old_data_outlives_a_failure_and_yields_to_success(tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare(write_criteo(tmp_path / "raw", 30), str(output))
    before = digests(output)
    with pytest.raises(DataError, match="finished data set"):
        prepare(write_criteo(tmp_path / "raw", 60), str(output))
    broken = write_criteo(tmp_path / "raw", 60, {5: "bad"}).model_copy(update={"max_bad_rows": 0})
    with pytest.raises(DataError, match="more than 0 rows"):
        prepare(broken, str(output), overwrite=True)
    assert digests(output) == before
    prepare(write_criteo(tmp_path / "raw", 60), str(output), overwrite=True)
    assert sum(day.rows for day in Dataset.open(str(output)).days) == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_damaged_input_is_named_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "day_0").write_text(criteo_row(1) + "\n")
    config = Criteo1tbConfig(input=str(folder))
    for name, content, message in (
        ("day_1", b"", "day_1 holds no rows"),
        ("day_1.gz", gzip.compress(b""), r"day_1\.gz holds no rows"),
        ("day_1.gz", gzip.compress(criteo_row(1).encode() * 99)[:-50], r"day_1\.gz is cut off or damaged"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            prepare(config, str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()
        (folder / name).unlink()
    with pytest.raises(DataError, match="found no file"):
        prepare(Criteo1tbConfig(input=str(tmp_path / "nowhere")), str(tmp_path / "out"))


def test_damage_that_only_the_second_pass_meets_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"when": ["2013-01-01"] * 5000, "clicked": [1] * 5000, "user": [f"u{row}" for row in range(5000)]})
    pq.write_table(table, path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[1000:3000] = bytes(2000)
    path.write_bytes(data)
    config = TableConfig(
        input=str(path),
        label=LabelColumn(column="clicked"),
        day=DayColumn(column="when"),
        ids=(IdColumn(column="user"),),
    )
    for ordered in (False, True):
        with pytest.raises(DataError, match=r"rows\.parquet is damaged in row group 0"):
            prepare(config.model_copy(update={"ordered": ordered}), str(tmp_path / "out"))


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot read the input or write to .*file/out"):
        prepare(write_criteo(tmp_path / "raw", 9), str(tmp_path / "file" / "out"))


def test_a_day_without_a_readable_row_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "day_0").write_text(criteo_row(1) + "\n")
    (folder / "day_1").write_text("no\nrow\n")
    with pytest.raises(
        DataError, match=r"day 001 of .*day_0 .*has no row that can be read: .*day_1:1: 1 instead of 40"
    ):
        prepare(Criteo1tbConfig(input=str(folder)), str(tmp_path / "out"))
    few = write_criteo(tmp_path / "few", 2)
    with pytest.raises(DataError, match=r"day 002 of .*train\.txt has no row .*fewer days"):
        prepare(few, str(tmp_path / "out"))


def test_a_single_date_that_is_off_is_a_bad_row_and_a_hole_is_none():
    days = tuple(Day(day=f"2013-01-0{number}", files=()) for number in (1, 3))
    spans = [Span(0, "log.csv", 0, 9)]
    good_day, stray = Reject("log.csv", 3, "no label", "x", "2013-01-01"), Reject("log.csv", 9, "no", "x", "2031-01-01")
    _check_days(days, [], [good_day, stray], spans)
    hole = Reject("log.csv", 5, "the label is not 0 or 1", "x", "2013-01-02")
    fault = "day 2013-01-02 of log.csv has no row that can be read: log.csv:5: the label is not 0 or 1; mend the input$"
    with pytest.raises(DataError, match=fault):
        _check_days(days, [], [good_day, hole, stray], spans)


def test_flights(tmp_path: Path) -> None:
    header = "year,month,day,sched_dep_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,distance\n"
    rows = "2013,1,2,515,819,16,UA,1,N1,EWR,IAH,1400\n2013,1,1,515,819,NA,UA,1,N1,EWR,IAH,1400\n"
    (tmp_path / "flights.csv").write_text(header + rows + rows.replace(",NA,", ",3,"))
    manifest = prepare(FlightsConfig(input=str(tmp_path / "flights.csv")), str(tmp_path / "out"))
    assert [(day.day, day.rows, day.positives) for day in manifest.days] == [
        ("2013-01-01", 1, 0),
        ("2013-01-02", 2, 2),
    ]
    assert manifest.source["notes"].endswith("left out (1 rows)")


def test_drift(tmp_path: Path) -> None:
    tree = {"source": "drift", "num_days": 2, "rows_per_day": 3000}
    config = check(AnyPrepare, {"prepare": tree}, "the test").prepare
    assert isinstance(config, DriftConfig)
    manifest = prepare(config, str(tmp_path / "out"))
    assert [day.day for day in manifest.days] == [drift.day_name(config, day) for day in range(2)]
    assert [day.rows for day in manifest.days] == [3000, 3000]
    for index, day in enumerate(manifest.days):
        parts = [drift.generate_part(config, *part) for part in drift.parts(config) if part[0] == index]
        labels = np.concatenate([part.table["label"].to_numpy() for part in parts])
        rate = labels.mean()
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        expected = sum(part.teacher_log_loss_sum for part in parts) / len(labels) / entropy
        assert day.best_ne == pytest.approx(expected)
        assert day.best_ne is not None
        assert day.best_ne < 1
    write_manifest(str(tmp_path / "out"), manifest)
    assert Dataset.open(str(tmp_path / "out")).schema == drift.schema(config)


@pytest.mark.skipif(not ML_100K.exists(), reason="real data is not there: ../shared/data/ml-100k")
def test_real_ratings(tmp_path: Path) -> None:
    manifest = prepare(MovielensConfig(input=str(ML_100K)), str(tmp_path / "out"))
    assert len(manifest.days) == 213
    assert sum(day.rows for day in manifest.days) == 100_000
    assert sum(day.positives for day in manifest.days) == 55_375
    assert manifest.rejected == {}
