from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raysparse.callbacks.row_pruning import RowPruning, RowPruningConfig
from raysparse.data.dataset import Dataset
from raysparse.errors import ConfigError
from tests.callbacks.ranks import model_of, pieces, read_rows, row_job, run_all, run_pruned, state_of
from tests.data.datasets import PLAIN, write_dataset
from tests.gloo import run_ranks
from tests.train.ranks import history

KINDS = ["table_wise", "row_wise", "column_wise", "data_parallel"]
DECAY = 0.5
DIM = 8
ROWS = 1000 + 500
BUDGET = 0.2
WITHIN_A_DAY = (7, 10)
"""Steps after which a save is asked for and the run is killed: the second day goes from step 6 to 11."""

pytestmark = pytest.mark.multi


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four days of 5 or 6 steps of 64 rows; items are drawn anew each day."""
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[300], [361], [310], [320]])
    return str(path)


@pytest.fixture(scope="module")
def two(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two workers, under every sharding."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks(2, run_all, data, str(folder), KINDS)
    return folder


@pytest.fixture(scope="module")
def one(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run_ranks(1, run_all, data, str(folder), KINDS)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_one_worker_keeps_the_rows_of_two(one: Path, two: Path, kind: str):
    (one_days, one_accesses), (two_days, two_accesses) = read_rows(one / kind), read_rows(two / kind)
    for day, (first, second) in enumerate(zip(one_days, two_days, strict=True)):
        assert first.keys() == {"user", "item"}
        for table, kept in first.items():
            assert torch.equal(kept, second[table]), f"{table} on day {day}"
    for table, accesses in one_accesses.items():
        assert torch.equal(accesses, two_accesses[table])


def test_the_plan_does_not_change_which_rows_are_kept(two: Path):
    # Column-wise row-wise Adagrad is another optimizer.
    expected, _ = read_rows(two / "table_wise")
    for kind in ("row_wise", "data_parallel"):
        days, _ = read_rows(two / kind)
        for first, second in zip(expected, days, strict=True):
            assert all(torch.equal(first[table], second[table]) for table in first)


@pytest.mark.parametrize("kind", KINDS)
def test_the_budget_is_spent_and_not_more(two: Path, kind: str):
    days, _ = read_rows(two / kind)
    assert [sum(int(kept.sum()) for kept in day.values()) for day in days] == [int(BUDGET * ROWS)] * 4
    records = history(two / kind)
    # A day is scored by the tables of the day before.
    assert [record["kept_rows"] for record in records] == [ROWS] + [int(BUDGET * ROWS)] * 3
    assert records[1]["kept_row_bytes"] == int(BUDGET * ROWS) * 4 * DIM
    assert [record["remapping_bytes"] for record in records] == [0] + [4 * ROWS] * 3
    assert {record["table_bytes"] for record in records} == {ROWS * 4 * DIM}
    tables = {"user": 1000, "item": 500}
    kept = [{table: int(rows.sum()) for table, rows in day.items()} for day in days[:3]]
    assert [record["kept_table_rows"] for record in records] == [tables, *kept]
    assert all(record["table_rows"] == tables for record in records)


@pytest.mark.parametrize("kind", KINDS)
def test_accesses_are_those_of_the_data(data: str, two: Path, kind: str):
    _, accesses = read_rows(two / kind)
    dataset = Dataset.open(data)
    for table, rows in (("user", 1000), ("item", 500)):
        expected = np.zeros(rows, dtype=np.float32)
        for day in dataset.days:
            ids = pq.read_table(Path(data) / day.files[0].path)[table].to_numpy()
            expected = expected * np.float32(DECAY) + np.bincount(ids, minlength=rows).astype(np.float32)
        np.testing.assert_array_equal(accesses[table].numpy(), expected)


def test_rows_in_use_are_kept_and_pruned_ones_come_back(two: Path):
    days, _ = read_rows(two / "table_wise")
    # All 29 users are looked up ten times a day, each item less than once.
    assert all(bool(day["user"][1:30].all()) for day in days)
    assert all(int(day["item"].sum()) > 100 for day in days)
    back = ~days[0]["item"] & ~days[1]["item"] & days[2]["item"]
    gone = days[0]["item"] & ~days[2]["item"]
    assert int(back.sum()) > 10
    assert int(gone.sum()) > 10


@pytest.mark.parametrize("kind", ["row_wise", "data_parallel"])
def test_a_run_that_is_killed_within_a_day_goes_on_to_the_same_rows(data: str, two: Path, tmp_path: Path, kind: str):
    changes = {"sharding": {"default": kind}}
    run_ranks(2, run_pruned, data, str(tmp_path), changes, *WITHIN_A_DAY)
    assert not list(tmp_path.glob("rows-*"))
    run_ranks(2, run_pruned, data, str(tmp_path), changes)
    assert history(tmp_path) == history(two / kind)
    whole, accesses = read_rows(two / kind)
    days, accesses_then = read_rows(tmp_path)
    for after, expected in zip(days, whole[-len(days) :], strict=True):
        assert all(torch.equal(after[table], expected[table]) for table in expected)
    assert all(torch.equal(accesses_then[table], accesses[table]) for table in accesses)


def test_a_run_goes_on_with_another_number_of_workers_and_another_plan(data: str, two: Path, tmp_path: Path):
    run_ranks(2, run_pruned, data, str(tmp_path), {"sharding": {"default": "data_parallel"}}, *WITHIN_A_DAY)
    run_ranks(3, run_pruned, data, str(tmp_path), {"sharding": {"default": "row_wise"}})
    whole, accesses = read_rows(two / "data_parallel")
    days, accesses_then = read_rows(tmp_path)
    assert all(torch.equal(days[-1][table], whole[-1][table]) for table in whole[-1])
    assert all(torch.equal(accesses_then[table], accesses[table]) for table in accesses)


def test_what_another_run_has_added_up_is_none_of_the_first_days_gradients(data: str, tmp_path: Path, one_rank: None):
    state = state_of(row_job(data, str(tmp_path), {}))
    shards = model_of(state).tables.shards
    for shard in shards:
        shard.states["row_sum"].fill_(2.0)
    pruning = RowPruning(RowPruningConfig(budget=0.2))
    pruning.fit_start(state)
    for shard in shards:
        shard.states["row_sum"][0] += 0.5  # the mean over 8 columns
    pruning.day_end(state)
    for parts in pieces(state, "utility_squares").values():
        ((first, squares),) = parts
        assert first == 0
        assert squares[0] == 4.0
        assert not squares[1:].any()


def test_an_optimizer_that_adds_up_no_gradients_is_refused(data: str, tmp_path: Path, one_rank: None):
    sgd = {"optimizer": {"sparse": {"kind": "sgd"}, "dense": {}}}
    with pytest.raises(ConfigError, match="optimizer.sparse.kind: found 'sgd'"):
        run_pruned(data, str(tmp_path), sgd)
