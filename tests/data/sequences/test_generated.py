import time
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

from raysparse.data.sequences import GeneratedSequencesConfig
from raysparse.data.sequences import generated as generated_module
from raysparse.data.sequences.generated import generate_histories, generate_users, has_counts, item_names, parts
from raysparse.data.sequences.histories import Histories, rows_table

SMALL = GeneratedSequencesConfig(seed=3, num_users=2_000, num_items=500, mean_length=20.0, max_length=60, ring_size=100)


def per_user(histories: Histories) -> list[list[int]]:
    return [items.tolist() for items in np.split(histories.items, histories.offsets[1:-1])]


def test_a_user_is_the_same_in_whatever_part() -> None:
    whole = per_user(generate_histories(SMALL, 0, 2_000))
    pieces = [per_user(generate_histories(SMALL, first, end)) for first, end in ((0, 1), (1, 700), (700, 2_000))]
    assert [user for piece in pieces for user in piece] == whole
    more = SMALL.model_copy(update={"num_users": 9_000})
    assert per_user(generate_histories(more, 0, 2_000)) == whole
    other = SMALL.model_copy(update={"seed": 4})
    assert per_user(generate_histories(other, 0, 2_000)) != whole


def test_parts_cover_all_users_once() -> None:
    config = GeneratedSequencesConfig(num_users=10**9, mean_length=100.0)
    ranges = parts(config)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 10**9
    assert all(before[1] == after[0] for before, after in zip(ranges, ranges[1:], strict=False))
    assert max(end - first for first, end in ranges) * 100 <= generated_module.EVENTS_PER_PART


def test_lengths_and_items_are_in_bounds() -> None:
    histories = generate_histories(SMALL, 0, 2_000)
    lengths = np.diff(histories.offsets)
    assert lengths.min() >= 4
    assert lengths.max() == 60
    assert np.mean(lengths) == pytest.approx(20, rel=0.15)
    assert histories.items.min() >= 1
    assert histories.items.max() <= 500
    even = SMALL.model_copy(update={"length_skew": 0.0})
    assert set(np.diff(generate_histories(even, 0, 50).offsets)) == {20}


def test_the_last_two_items_tell_the_next() -> None:
    config = SMALL.model_copy(update={"num_users": 20_000, "signal_share": 0.6, "num_successors": 3})
    followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    alone: dict[int, Counter[int]] = defaultdict(Counter)
    for items in per_user(generate_histories(config, 0, config.num_users)):
        for before, last, following in zip(items, items[1:], items[2:], strict=False):
            followers[before, last][following] += 1
            alone[last][following] += 1
    often = [counts for counts in followers.values() if counts.total() >= 30]
    assert len(often) > 100
    right = sum(counts.most_common(1)[0][1] for counts in often) / sum(counts.total() for counts in often)
    assert right == pytest.approx(0.62, abs=0.05)
    # One item alone leaves up to three successors, of which the best cannot be as often right.
    once = sum(counts.most_common(1)[0][1] for counts in alone.values()) / sum(map(Counter.total, alone.values()))
    assert once < right - 0.1
    noise = config.model_copy(update={"signal_share": 0.0})
    drawn = Counter(generate_histories(noise, 0, 2_000).items.tolist())
    assert drawn.most_common(1)[0][1] > 10 * drawn.total() / 500


def test_leave_one_out_rows() -> None:
    part = generate_users(SMALL, 0, 100)
    users = per_user(part.histories)
    tables = {name: rows_table(part.histories, rows) for name, rows in part.rows.items()}
    assert tables["train"]["history"].to_pylist() == [items[:1] for items in users]
    assert tables["train"]["targets"].to_pylist() == [items[1:-2] for items in users]
    assert tables["validation"]["targets"].to_pylist() == [items[-2:-1] for items in users]
    assert tables["test"]["history"].to_pylist() == [items[:-1] for items in users]
    trained = Counter(item for items in users for item in items[:-2])
    assert dict(zip(part.items.tolist(), part.counts.tolist(), strict=True)) == trained


def test_days_spread_a_user_evenly() -> None:
    config = SMALL.model_copy(update={"num_days": 5, "max_history": 7})
    part = generate_users(config, 0, 2_000)
    assert list(part.rows) == [f"2030-01-0{day}" for day in range(1, 6)]
    assert int(part.counts.sum()) == len(part.histories.items)
    targets = [int((rows.ends - rows.target_starts).sum()) for rows in part.rows.values()]
    assert sum(targets) == len(part.histories.items) - 2_000
    assert max(targets) < 1.5 * min(targets)
    table = rows_table(part.histories, part.rows["2030-01-05"])
    assert max(len(history) for history in table["history"].to_pylist()) == 7
    # Users are the same with days and without.
    assert per_user(part.histories) == per_user(generate_histories(SMALL, 0, 2_000))


def test_size_of_the_table_costs_nothing() -> None:
    config = GeneratedSequencesConfig(num_users=1_000, num_items=2**31 - 2, mean_length=30.0)
    generate_users(config, 0, 10)
    begun = time.monotonic()
    part = generate_users(config, 0, 1_000)
    assert time.monotonic() - begun < 5
    assert not has_counts(config)
    assert len(part.items) == 0
    assert part.histories.items.max() > 2**30
    table = rows_table(part.histories, part.rows["test"])
    assert table.schema.field("history").type.value_type == pa.int32()


def test_names_are_the_numbers_of_rows() -> None:
    assert item_names(SMALL.model_copy(update={"num_items": 3})).to_pylist() == ["1", "2", "3"]
