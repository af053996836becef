from pathlib import Path

import numpy as np
import pytest

from raysparse.errors import DataError
from raysparse.report.run import kind_of, number_of, read_run
from raysparse.train.run_folder import RunFolder
from tests.report.runs import record, table, write_run


def read(folder: Path):
    return read_run(RunFolder(str(folder)))


def test_days_are_sorted_and_arms_keep_their_order(tmp_path: Path):
    lines = [record("2013-01-02", "trained", ne=0.8), record("2013-01-02", "frozen"), record("2013-01-01", "trained")]
    write_run(tmp_path, lines)
    history = read(tmp_path).history
    assert history.days == ["2013-01-01", "2013-01-02"]
    assert history.arms == ["trained", "frozen"]
    np.testing.assert_array_equal(history.series("trained", "ne"), [0.9, 0.8])
    np.testing.assert_array_equal(history.series("frozen", "ne"), [np.nan, 0.9])
    np.testing.assert_array_equal(history.rows, [1000, 1000])


def test_a_warm_up_day_has_speed_but_no_scores(tmp_path: Path):
    write_run(tmp_path, [record("1", "a", warm_up=True, ne=3.0), record("2", "a", ne=0.8)])
    history = read(tmp_path).history
    np.testing.assert_array_equal(history.warm_up, [True, False])
    np.testing.assert_array_equal(history.series("a", "ne"), [np.nan, 0.8])
    np.testing.assert_array_equal(history.series("a", "samples_per_s"), [50_000, 50_000])
    assert history.totals["arms"]["a"]["ne"] == pytest.approx(0.8)
    assert history.totals["arms"]["a"]["days"] == 1


def test_means_are_weighed_by_rows_like_the_summary(tmp_path: Path):
    write_run(tmp_path, [record("1", "a", rows=1000, ne=0.8), record("2", "a", rows=3000, ne=0.9)])
    totals = read(tmp_path).history.totals
    assert totals["arms"]["a"]["ne"] == pytest.approx(0.875)
    assert totals["rows"] == 4000
    assert totals["samples_per_s"] == pytest.approx(4000 / 0.04)


def test_arms_in_the_shadow_are_left_out(tmp_path: Path):
    lines = [record("1", "sparse.candidate", shadow=True, ne=0.1), record("1", "sparse"), record("1", "trained")]
    write_run(tmp_path, lines)
    history = read(tmp_path).history
    assert history.arms == ["trained", "sparse"]
    assert list(history.totals["arms"]) == ["trained", "sparse"]
    assert [line.arm for line in history.records] == ["trained", "sparse"]


def test_what_a_pruned_arm_keeps_is_read_by_place_and_day(tmp_path: Path):
    groups = {"top.0": 8, "pairs": 10}
    lines = [
        record("1", "trained"),
        record("2", "trained"),
        record("3", "trained"),
        record("2", "sparse", widths={"top.0": 4, "pairs": 0}, groups=groups, swapped=False),
        record("3", "sparse", widths={"top.0": 2, "pairs": 5}, groups=groups, swapped=True, churn=0.5),
    ]
    write_run(tmp_path, lines)
    history = read(tmp_path).history
    assert list(history.dense_groups("sparse").items()) == [("top.0", 8), ("pairs", 10)]
    assert history.dense_groups("trained") == {}
    np.testing.assert_array_equal(history.widths("sparse", "top.0"), [np.nan, 4, 2])
    np.testing.assert_array_equal(history.widths("sparse", "pairs"), [np.nan, 0, 5])
    np.testing.assert_array_equal(history.swapped("sparse"), [False, False, True])
    np.testing.assert_array_equal(history.series("sparse", "churn"), [np.nan, np.nan, 0.5])


def test_rows_kept_are_read_by_table_and_day(tmp_path: Path):
    rows = {"user": 100, "item": 300, "empty": 0}
    kept = {"kept_table_rows": {"user": 50, "item": 30, "empty": 0}, "table_rows": rows, "kept_rows": 80}
    write_run(tmp_path, [record("1", "trained"), record("2", "trained", **kept), record("2", "frozen")])
    history = read(tmp_path).history
    assert list(history.table_rows("trained").items()) == [("user", 100), ("item", 300)]
    assert history.table_rows("frozen") == {}
    np.testing.assert_array_equal(history.kept_rows("trained", "item"), [np.nan, 30])
    np.testing.assert_array_equal(history.series("trained", "kept_rows"), [np.nan, 80])


def test_a_missing_history_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"history\.jsonl is missing"):
        read(tmp_path)


def test_an_empty_history_is_named(tmp_path: Path):
    write_run(tmp_path, [])
    with pytest.raises(DataError, match=r"history\.jsonl is empty"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"day": "2013-01-02", "arm": "a", "ro', r"not JSON"),
        ("[1, 2]", "an object with day, arm and rows"),
        ('{"day": 2, "arm": "a", "rows": 1}', r"day: found 2; allowed: a text"),
        ('{"day": "2", "rows": 1}', r"arm: found null; allowed: a text"),
        ('{"day": "2", "arm": "a", "rows": 1.5}', r"rows: found 1\.5"),
        ('{"day": "2", "arm": "a", "rows": 1, "ne": "low"}', r'ne: found "low"; allowed: a number or null'),
        ('{"day": "2", "arm": "a", "rows": 1, "base_rate": 0.1}', r"log_loss: found null; allowed: a number"),
        (
            '{"day": "2", "arm": "a", "rows": 1, "base_rate": 0.1, "log_loss": 1, "widths": {"top.0": -1}}',
            r'widths: found {"top\.0": -1}; allowed: a whole number for each place',
        ),
        (
            '{"day": "2", "arm": "a", "rows": 1, "base_rate": 0.1, "log_loss": 1, "table_rows": {"user": 0.5}}',
            r'table_rows: found {"user": 0\.5}; allowed: a whole number for each table',
        ),
        (
            '{"day": "2", "arm": "a", "rows": 1, "base_rate": 0.1, "log_loss": 1, "swapped": 1}',
            "swapped: found 1; allowed: true, false or null",
        ),
        ('{"day": "2", "arm": "a", "rows": 1, "base_rate": NaN, "log_loss": 1}', r"base_rate: found NaN"),
    ],
)
def test_a_broken_line_is_named_with_file_and_line(tmp_path: Path, line: str, fault: str):
    write_run(tmp_path, [record("1", "a"), record("1", "b")])
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=rf"history\.jsonl, line 3: .*{fault}"):
        read(tmp_path)


def test_a_day_that_stands_twice_is_named_with_both_lines(tmp_path: Path):
    write_run(tmp_path, [record("1", "a"), record("2", "a"), record("1", "a")])
    with pytest.raises(DataError, match=r"line 3: day '1', arm 'a' stands in line 1 already"):
        read(tmp_path)


def test_optional_files_that_are_missing_are_listed(tmp_path: Path):
    write_run(tmp_path, [record("1", "a")])
    run = read(tmp_path)
    assert [sentence.split()[0] for sentence in run.missing] == ["summary.json", "plan.json", "job.yaml"]
    assert (run.summary, run.plan, run.job) == ({}, [], "")


def test_optional_files_that_are_broken_are_listed(tmp_path: Path):
    write_run(tmp_path, [record("1", "a")], plan=[table("c0"), {"table": "c1"}], job="kind: train\n")
    (tmp_path / "summary.json").write_text('{"name": ')
    run = read(tmp_path)
    assert len(run.missing) == 2
    assert run.missing[0].startswith("summary.json is not JSON")
    assert '{"table": "c1"}' in run.missing[1]
    assert run.job == "kind: train\n"


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), (0.5, 0.5), (0, 0.0), (True, None), ("3", None), (None, None), ([3], None)]
)
def test_a_number_of_a_summary_is_one_or_missing(value: object, number: float | None):
    assert number_of(value) == number


@pytest.mark.parametrize(("part", "kind"), [({"kind": "dlrm"}, "dlrm"), ("dlrm", "dlrm"), ({}, ""), (None, "")])
def test_a_kind_stands_under_its_key_or_alone(part: object, kind: str):
    assert kind_of(part) == kind
