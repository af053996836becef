"""Order, numbering and rows of events, from any file to the data set."""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.data.hashing import fnv1a_64, mix_64
from raysparse.data.sequences import histories as histories_module
from raysparse.data.sequences.histories import Histories, Rows, write_rows
from raysparse.errors import DataError
from tests.data.sequences.converting import Converted, converted, sequences

Event = tuple[int, str, int]
"""User, item, time in hours."""

COLUMNS = {"user": "user", "item": "item", "time": "time"}
EVENTS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcdef"), st.integers(0, 60)), min_size=1, max_size=60)


def convert_events(folder: Path, events: list[Event], **keys: object) -> Converted:
    table = pa.table({
        "user": pa.array([user for user, _, _ in events], pa.int64()),
        "item": pa.array([item for _, item, _ in events], pa.string()),
        "time": pa.array([3600 * time for _, _, time in events], pa.int64()),
    })  # fmt: skip
    pq.write_table(table, folder / "events.parquet")
    return converted(folder, input=str(folder / "events.parquet"), format="table", columns=COLUMNS, **keys)


def expected_sequences(events: list[Event]) -> list[list[tuple[str, int]]]:
    """Each user's items and times, in Python: users as they first appear, ties as they stand, repeats once."""
    users = {user: [] for user, _, _ in events}
    for user, item, time in dict.fromkeys(events):
        users[user].append((item, time))
    return [sorted(items, key=lambda pair: pair[1]) for items in users.values()]


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_leave_one_out_is_the_sorted_sequence(events: list[Event]) -> None:
    expected = [[item for item, _ in items] for items in expected_sequences(events) if len(items) >= 3]
    with TemporaryDirectory() as folder:
        if not any(len(items) > 3 for items in expected):
            with pytest.raises(DataError):
                convert_events(Path(folder), events)
            return
        result = convert_events(Path(folder), events)
    assert [history + targets for history, targets in result.rows["test"]] == expected
    assert result.rows["validation"] == [(items[:-2], items[-2:-1]) for items in expected]
    assert result.rows["train"] == [(items[:1], items[1:-2]) for items in expected if len(items) > 3]
    trained = [item for items in expected for item in items[:-2]]
    assert result.counts == {item: trained.count(item) for item in result.counts}
    assert set(result.counts) == set(itertools.chain(*expected))


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, max_history=st.integers(1, 5))
def test_days_chain_up_to_the_whole_sequence(events: list[Event], max_history: int) -> None:
    users = expected_sequences(events)
    expected: dict[str, list[tuple[list[str], list[str]]]] = {}
    for day in range(3):
        for items in users:
            start = max(1, sum(time < 24 * day for _, time in items))
            end = sum(time < 24 * (day + 1) for _, time in items)
            if start < end:
                names = [item for item, _ in items]
                row = (names[max(0, start - max_history) : start], names[start:end])
                expected.setdefault(f"1970-01-0{day + 1}", []).append(row)
    with TemporaryDirectory() as folder:
        if not expected:
            with pytest.raises(DataError, match="nothing to predict"):
                convert_events(Path(folder), events, split="days", max_history=max_history)
            return
        result = convert_events(Path(folder), events, split="days", max_history=max_history)
    assert result.rows == expected
    assert list(result.rows) == sorted(expected)
    every = [item for items in users for item, _ in items]
    assert result.counts == {item: every.count(item) for item in result.counts}


def test_ties_and_repeats_are_counted(tmp_path: Path) -> None:
    events = [(1, "b", 5), (1, "a", 5), (1, "b", 5), (1, "c", 4), (1, "a", 5), (1, "a", 6), (2, "a", 5), (1, "d", 6)]
    result = convert_events(tmp_path, events)
    assert sequences(result) == ["cbaad"]
    assert result.manifest.left_out == {
        "repeats of an event (the same user, item and time)": 2,
        "users with fewer than 3 events": 1,
    }
    notes = "2 events are at the time of their user's event before; their order is the input's"
    assert result.manifest.source["notes"] == notes


def test_core_goes_on_until_nothing_changes(tmp_path: Path) -> None:
    # Without user 3, who has one event, d is left with one; without d, user 2 is left with two; then c goes.
    rows = {1: "aabbcab", 2: "cd", 3: "d", 4: "abab"}
    events = [(user, item, time) for user, items in rows.items() for time, item in enumerate(items)]
    result = convert_events(tmp_path, events, min_user_events=2, min_item_events=2)
    assert sequences(result) == ["aabbab", "abab"]
    assert result.manifest.left_out == {"events outside the core of at least 2 events of a user and 2 of an item": 4}
    assert set(result.counts) == {"a", "b"}


def test_items_keep_enough_events_where_short_users_go(tmp_path: Path) -> None:
    # d goes first. Without user 2, who is left with one event, c has two; without c, user 4 is too short.
    rows = {1: "aabbc", 2: "cd", 3: "aab", 4: "cab"}
    events = [(user, item, time) for user, items in rows.items() for time, item in enumerate(items)]
    result = convert_events(tmp_path, events, min_item_events=3)
    assert sequences(result) == ["aabb", "aab"]
    assert set(result.counts) == {"a", "b"}
    assert result.manifest.left_out == {
        "events outside the core of at least 1 events of a user and 3 of an item": 5,
        "users with fewer than 3 events": 1,
    }


def test_nothing_left_is_said_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leaves no event \(3 events outside the core .*lower `min_user_events`"):
        convert_events(tmp_path, [(1, item, 1) for item in "abc"], min_user_events=4)
    (tmp_path / "out" / "items.parquet").unlink(missing_ok=True)
    (tmp_path / "out").rmdir()
    with pytest.raises(DataError, match="no user has two items to train on"):
        convert_events(tmp_path, [(1, item, 1) for item in "abc"])


def test_short_users_and_their_items_are_left_out(tmp_path: Path) -> None:
    events = [(1, "z", 1), (1, "a", 2), *((2, item, time) for time, item in enumerate("abcd"))]
    result = convert_events(tmp_path, events)
    assert sequences(result) == ["abcd"]
    assert set(result.counts) == set("abcd")
    assert result.manifest.left_out == {"users with fewer than 3 events": 1}


def test_numbers_of_items_follow_from_their_names_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    items = [f"item-{number}" for number in generator.integers(0, 50, 300)]
    events = [(number % 7, item, number) for number, item in enumerate(items)]
    orders: list[list[str]] = []
    for name, order in (("one", events), ("two", [events[place] for place in generator.permutation(300)])):
        (tmp_path / name).mkdir()
        orders.append(list(convert_events(tmp_path / name, order).counts))
    assert orders[0] == orders[1]
    names = sorted(set(items))
    hashes = mix_64(fnv1a_64(pa.array(names)))
    assert orders[0] == [names[place] for place in np.argsort(hashes)]


def test_files_are_cut_by_rows_and_by_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories_module, "ROWS_PER_FILE", 4)
    monkeypatch.setattr(histories_module, "_ITEMS_PER_FILE", 10)
    items = np.arange(1, 41, dtype=np.int32)
    histories = Histories(items, np.arange(40), np.array([0, 40]), 40)
    lengths = np.array([2, 2, 2, 2, 2, 9, 3, 30, 1])
    ends = np.cumsum(lengths) % 41
    starts = np.maximum(ends - lengths, 0)
    rows = Rows(starts, starts + (ends > starts), ends)
    day = write_rows(str(tmp_path), "x", histories, rows)
    assert sum(file.rows for file in day.files) == 9
    assert all(file.rows <= 4 for file in day.files)
    tables = [pq.ParquetFile(tmp_path / file.path).read() for file in day.files]
    sizes = [sum(len(row) for name in ("history", "targets") for row in table[name].to_pylist()) for table in tables]
    assert all(size <= 10 or table.num_rows == 1 for size, table in zip(sizes, tables, strict=True))
    targets = [row for table in tables for row in table["targets"].to_pylist()]
    assert targets == [list(range(split + 1, end + 1)) for split, end in zip(rows.target_starts, ends, strict=True)]
