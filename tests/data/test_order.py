import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysparse.data.dataset import Day, PartFile
from raysparse.data.order import rows_in_batch, share_of, windows_of

days = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=4)


def day_of(files: list[list[int]]) -> Day:
    parts = [PartFile(path=str(i), row_groups=tuple(g), positives=0, num_bytes=1) for i, g in enumerate(files)]
    return Day(day="2020-01-01", files=tuple(parts))


def batches_of(day: Day, world_size: int, batch_size: int, shuffle_rows: int, seed: int = 3) -> list[list[np.ndarray]]:
    """Per batch and rank, its rows as (window, row) pairs."""
    batches = []
    for number, window in enumerate(windows_of(day, seed, batch_size, shuffle_rows)):
        shares = [share_of(window, seed, day.day, rank, world_size) for rank in range(world_size)]
        for batch in range(window.num_batches):
            batches.append([share.rows_of_batch[batch] + share.start + 10_000 * number for share in shares])
    return batches


@given(days, st.integers(1, 5), st.integers(1, 40), st.integers(1, 200))
def test_every_row_is_read_once_by_one_rank(files, world_size, batch_size, shuffle_rows):
    day = day_of(files)
    rows = np.concatenate([rows for batch in batches_of(day, world_size, batch_size, shuffle_rows) for rows in batch])
    assert len(rows) == day.rows
    assert len(np.unique(rows)) == day.rows
    groups = [g for window in windows_of(day, 3, batch_size, shuffle_rows) for g in window.row_groups]
    assert len(groups) == len({(g.path, g.index) for g in groups}) == sum(len(sizes) for sizes in files)


@given(days, st.integers(2, 5), st.integers(1, 40), st.integers(1, 200))
def test_a_batch_holds_the_same_rows_for_any_number_of_workers(files, world_size, batch_size, shuffle_rows):
    day = day_of(files)
    alone = batches_of(day, 1, batch_size, shuffle_rows)
    together = batches_of(day, world_size, batch_size, shuffle_rows)
    assert len(alone) == len(together)
    for one, many in zip(alone, together, strict=True):
        assert sorted(one[0]) == sorted(np.concatenate(many))


@given(days, st.integers(1, 5), st.integers(1, 40), st.integers(1, 200))
def test_batches_are_full_even_and_shared_out_evenly(files, world_size, batch_size, shuffle_rows):
    day = day_of(files)
    for window in windows_of(day, 3, batch_size, shuffle_rows):
        sizes = rows_in_batch(window, 3, day.day)
        assert sizes.sum() == window.num_rows
        assert sizes.max() <= batch_size
        assert sizes.max() - sizes.min() <= 1
        for rank in range(world_size):
            share = share_of(window, 3, day.day, rank, world_size)
            assert all(share.padded_rows - 2 <= len(rows) <= share.padded_rows for rows in share.rows_of_batch)


def test_a_rank_reads_its_part_of_a_window_only():
    day = day_of([[100] * 4])
    (window,) = windows_of(day, 3, 40, 1000)
    shares = [share_of(window, 3, day.day, rank, 4) for rank in range(4)]
    assert [(share.start, share.stop) for share in shares] == [(0, 100), (100, 200), (200, 300), (300, 400)]


def test_the_order_follows_from_seed_and_day():
    day = day_of([[50, 50], [50]])
    first = batches_of(day, 1, 10, 200)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, batches_of(day, 1, 10, 200), strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, batches_of(day, 1, 10, 200, seed=4), strict=True))


def test_the_order_is_the_one_of_earlier_versions():
    """A change of the order would make checkpoints within a day resume on other rows."""
    day = day_of([[7, 5], [8]])
    (window,) = windows_of(day, 1, 8, 100)
    assert [(group.path, group.index) for group in window.row_groups] == [("0", 0), ("1", 0), ("0", 1)]
    rows = [batch.tolist() for batch in share_of(window, 1, day.day, 0, 1).rows_of_batch]
    assert rows == [[1, 3, 7, 9, 13, 17, 18], [2, 4, 8, 11, 14, 16, 19], [0, 5, 6, 10, 12, 15]]
