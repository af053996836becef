from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysparse.data import stream as stream_module
from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream, StreamConfig
from raysparse.errors import DataError
from tests.data.datasets import JAGGED, PLAIN, write_dataset


def numbers(dataset: Dataset, world_size: int, start: int = 0) -> list[list[float]]:
    """Per batch the sorted `number` of its rows, over all ranks; it is unique per row."""
    config = StreamConfig(batch_size=64, shuffle_rows=400)
    streams = [DayStream(dataset, config, 5, rank, world_size) for rank in range(world_size)]
    found = []
    for batches in zip(*(stream.batches(dataset.days[0], start) for stream in streams), strict=True):
        assert len({len(batch.labels) for batch in batches}) == 1
        values = np.concatenate([batch.dense[batch.weights > 0, 0].numpy() for batch in batches])
        assert {batch.num_rows for batch in batches} == {len(values)}
        found.append(sorted(values.tolist()))
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("plain"), PLAIN, [[300, 500, 161]])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resumed_day_reads_the_rest_with_any_number_of_workers(plain: Dataset, world_size: int):
    whole = numbers(plain, 1)
    assert sum(len(batch) for batch in whole) == 961
    assert numbers(plain, world_size) == whole
    assert numbers(plain, world_size, start=5) == whole[5:]
    assert numbers(plain, world_size, start=len(whole)) == []


def test_rows_stay_together_and_missing_values_are_marked(plain: Dataset):
    stream = DayStream(plain, StreamConfig(batch_size=100), 5)
    table = stream._table(stream._windows(plain.days[0], 100)[0], stream_share(stream))
    user_of = dict(zip(table["number"].to_pylist(), table["user"].to_pylist(), strict=True))
    gap_of = dict(zip(table["number"].to_pylist(), table["gap"].to_pylist(), strict=True))
    for batch in stream.batches(plain.days[0]):
        assert batch.dense.shape[1] == PLAIN.num_dense_inputs == 3
        users = batch.ids["user"].values().tolist()
        for (number, gap, missing), user in zip(batch.dense[: batch.num_rows].tolist(), users, strict=True):
            assert user_of[number] == user
            assert (gap, missing) == ((0.0, 1.0) if np.isnan(gap_of[number]) else (1.5, 0.0))


@pytest.mark.parametrize(("rows", "reads"), [([300], 1), ([300, 300], 2), ([300, 300, 300], 5)])
def test_the_second_reading_of_a_day_finds_its_first_window_and_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], reads: int
):
    dataset = write_dataset(tmp_path, PLAIN, [rows])
    stream = DayStream(dataset, StreamConfig(batch_size=64, shuffle_rows=330), 5)
    assert len(stream._windows(dataset.days[0], 64)) == len(rows)
    done: list[int] = []
    read = stream_module._read_row_group

    def counted(url: str, index: int, rows: int, schema: pa.Schema) -> pa.Table:
        done.append(index)
        return read(url, index, rows, schema)

    monkeypatch.setattr(stream_module, "_read_row_group", counted)
    first, second = ([batch.dense for batch in stream.batches(dataset.days[0])] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(done) == reads
    assert len(stream._kept) <= 2


def stream_share(stream: DayStream):
    from raysparse.data.order import share_of

    day = stream.dataset.days[0]
    return share_of(stream._windows(day, 100)[0], stream.seed, day.day, 0, 1)


@pytest.mark.parametrize("world_size", [1, 2])
def test_lists_of_ids_are_jagged_and_padding_has_none(tmp_path: Path, world_size: int):
    dataset = write_dataset(tmp_path / "jagged", JAGGED, [[101]])
    lists = []
    for rank in range(world_size):
        stream = DayStream(dataset, StreamConfig(batch_size=10), 5, rank, world_size)
        for batch in stream.batches(dataset.days[0]):
            tags = batch.ids["tags"].to_dense()
            users = batch.ids["user"].to_dense()
            for tag, user, weight in zip(tags, users, batch.weights, strict=True):
                assert len(user) == int(weight)
                if weight:
                    lists.append(tuple(tag.tolist()))
                else:
                    assert len(tag) == 0
    expected = [tuple(range(1 + index % 4, 1 + index % 4 + index % 3)) for index in range(101)]
    assert sorted(lists) == sorted(expected)


def test_a_day_smaller_than_the_number_of_workers_gives_every_rank_a_batch(tmp_path: Path):
    dataset = write_dataset(tmp_path / "tiny", PLAIN, [[1]])
    batches = [list(DayStream(dataset, StreamConfig(), 1, rank, 3).batches(dataset.days[0])) for rank in range(3)]
    assert [len(b) for b in batches] == [1, 1, 1]
    assert sum(int(b[0].weights.sum()) for b in batches) == 1
    assert {len(b[0].labels) for b in batches} == {1}


def test_a_damaged_file_is_named(tmp_path: Path):
    dataset = write_dataset(tmp_path / "cut", PLAIN, [[300]])
    file = tmp_path / "cut" / dataset.days[0].files[0].path
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"part-00000.parquet: row group 0 cannot be read .* prepare the data set anew"):
        list(DayStream(dataset, StreamConfig(), 1).batches(dataset.days[0]))


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist; make one with `raysparse prepare"):
        Dataset.open(str(tmp_path / "none"))
    write_dataset(tmp_path / "half", PLAIN, [[10]])
    (tmp_path / "half" / "dataset.json").unlink()
    with pytest.raises(DataError, match="holds no finished data set"):
        Dataset.open(str(tmp_path / "half"))
