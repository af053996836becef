from dataclasses import fields

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.data.sequence_batch import items_before, sequences_of, shorten, split_last_targets
from tests.data.sequence_sets import Row, ids_of

Rows = list[Row]


def test_history_and_targets_are_one_sequence_of_which_the_last_item_is_no_input():
    batch = sequences_of(ids_of([([1, 2], [3, 4]), ([], []), ([5], [6])]), max_length=10)
    assert batch.items.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.lengths.tolist() == [4, 0, 2]
    assert batch.items[batch.input_places].tolist() == [1, 2, 3, 5]
    assert batch.input_offsets.tolist() == [0, 3, 3, 4]
    assert batch.targets.tolist() == [3, 4, 6]
    assert batch.target_inputs.tolist() == [1, 2, 3]
    assert batch.target_rows.tolist() == [0, 0, 2]


def test_a_long_history_is_cut_at_its_beginning_and_keeps_what_was_seen():
    ids = ids_of([([1, 2, 3, 4], [5]), ([7], [8, 9, 10, 11])])
    batch = sequences_of(ids, max_length=2)
    assert batch.items.tolist() == [3, 4, 5, 9, 10, 11]
    assert batch.targets.tolist() == [5, 10, 11]  # nothing stands before 9 any more
    items, of = items_before(ids, batch, slice(None))
    assert [items[of == target].tolist() for target in range(3)] == [[1, 2, 3, 4], [7, 8, 9], [7, 8, 9, 10]]


def test_a_row_that_is_too_long_becomes_windows_that_share_its_targets():
    # The second row's first window is from its beginning; the third's history is long, its two targets need one window.
    ids = ids_of([([1, 2], [3]), ([4], [5, 6, 7, 8, 9, 10, 11]), ([12, 13, 14, 15, 16, 17], [18, 19]), ([], [])])
    batch = sequences_of(ids, max_length=3, in_windows=True)
    pieces = [piece.tolist() for piece in batch.items.split(batch.lengths.tolist())]
    assert pieces == [[1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9], [8, 9, 10, 11], [16, 17, 18, 19], []]
    assert batch.targets.tolist() == [3, 5, 6, 7, 8, 9, 10, 11, 18, 19]
    assert batch.target_rows.tolist() == [0, *[1] * 7, 2, 2]
    assert batch.num_before.tolist() == [2, 1, 2, 3, 4, 5, 6, 7, 6, 7]
    assert batch.items[batch.input_places][batch.target_inputs].tolist() == [2, 4, 5, 6, 7, 8, 9, 10, 17, 18]
    items, of = items_before(ids, batch, slice(None))
    assert items[of == 5].tolist() == [4, 5, 6, 7, 8]


def test_at_a_share_a_long_row_is_cut_where_targets_may_be():
    ids = ids_of([([1], [2, 3, 4, 5, 6]), ([11, 12, 13, 14], [15]), ([21], [22]), ([], [])])

    def pieces(share: float) -> list[list[int]]:
        batch = sequences_of(ids, max_length=2, shares=torch.full((4,), share, dtype=torch.float64))
        return [piece.tolist() for piece in batch.items.split(batch.lengths.tolist())]

    others = [[13, 14, 15], [21, 22], []]
    # Of six places two are those that come before the first one and behind the last one.
    assert [pieces(share) for share in (0.0, 0.17, 0.34, 0.51, 0.68, 0.99)] == [
        [[1, 2, 3], *others],
        [[1, 2, 3], *others],
        [[2, 3, 4], *others],
        [[3, 4, 5], *others],
        [[4, 5, 6], *others],
        [[4, 5, 6], *others],
    ]


ROWS = st.lists(
    st.tuples(st.lists(st.integers(1, 50), max_size=6), st.lists(st.integers(1, 50), max_size=6)), min_size=1
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, max_length=st.integers(1, 8))
def test_every_target_is_what_comes_next_after_its_input(rows: Rows, max_length: int):
    ids = ids_of(rows)
    batch = sequences_of(ids, max_length)
    expected: list[tuple[int, int, int, list[int]]] = []
    for row, (history, targets) in enumerate(rows):
        whole = [*history, *targets]
        first = max(0, len(whole) - max_length - 1)
        for place in range(max(len(history), first + 1), len(whole)):
            expected.append((row, whole[place - 1], whole[place], whole[:place]))
    inputs = batch.items[batch.input_places]
    items, of = items_before(ids, batch, slice(None))
    found = [
        (int(row), int(inputs[place]), int(target), items[of == number].tolist())
        for number, (row, place, target) in enumerate(
            zip(batch.target_rows, batch.target_inputs, batch.targets, strict=True)
        )
    ]
    assert found == expected
    assert int(batch.lengths.max()) <= max_length + 1


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, max_length=st.integers(1, 8))
def test_in_windows_every_target_is_there_once_with_half_of_the_history_at_least(rows: Rows, max_length: int):
    ids = ids_of(rows)
    batch = sequences_of(ids, max_length, in_windows=True)
    expected: list[tuple[int, list[int]]] = []
    for row, (history, targets) in enumerate(rows):
        whole = [*history, *targets]
        expected += [(row, whole[: place + 1]) for place in range(max(len(history), 1), len(whole))]
    items, of = items_before(ids, batch, slice(None))
    ends = batch.lengths.cumsum(0)
    found: list[tuple[int, list[int]]] = []
    for number, place in enumerate(batch.target_places.tolist()):
        before = items[of == number].tolist()
        found.append((int(batch.target_rows[number]), [*before, int(batch.items[place])]))
        sequence = int(torch.searchsorted(ends, place, right=True))
        read = batch.items[int(ends[sequence] - batch.lengths[sequence]) : place].tolist()
        assert read == before[len(before) - len(read) :]
        assert len(read) >= min(len(before), (max_length + 1) // 2)
        assert int(batch.items[batch.input_places][batch.target_inputs[number]]) == before[-1]
    assert found == expected
    assert all(length <= max_length + 1 for length in batch.lengths.tolist())
    # Where no row is longer than what is read, there is nothing to cut.
    if max(len(history) + len(targets) for history, targets in rows) <= max_length + 1:
        assert all(getattr(batch, f.name).equal(getattr(sequences_of(ids, max_length), f.name)) for f in fields(batch))


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, max_length=st.integers(1, 8), share=st.floats(0, 1, exclude_max=True, width=32))
def test_a_drawn_piece_has_as_many_items_as_the_last_one_and_targets_with_what_is_before_them(
    rows: Rows, max_length: int, share: float
):
    ids = ids_of(rows)
    last = sequences_of(ids, max_length)
    batch = sequences_of(ids, max_length, shares=torch.full((len(rows),), share, dtype=torch.float64))
    assert batch.lengths.equal(last.lengths)
    assert set(batch.target_rows.tolist()) == set(last.target_rows.tolist())
    wholes = [[*history, *targets] for history, targets in rows]
    items, of = items_before(ids, batch, slice(None))
    inputs = batch.items[batch.input_places]
    for number, (row, place, target) in enumerate(
        zip(batch.target_rows.tolist(), batch.target_inputs, batch.targets.tolist(), strict=True)
    ):
        before = items[of == number].tolist()
        assert [*before, target] == wholes[row][: len(before) + 1]
        assert int(inputs[place]) == before[-1]
        assert len(before) >= len(rows[row][0])


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, max_length=st.integers(1, 8), shorter=st.integers(1, 8))
def test_shortening_is_what_cutting_at_once_would_have_given(rows: Rows, max_length: int, shorter: int):
    ids = ids_of(rows)
    batch = sequences_of(ids, max_length)
    short = shorten(batch, min(shorter, max_length))
    expected = sequences_of(ids, min(shorter, max_length))
    for field in fields(expected):
        assert getattr(short.sequences, field.name).equal(getattr(expected, field.name)), field.name
    assert batch.items[short.items].equal(expected.items)
    assert batch.targets[short.targets].equal(expected.targets)
    assert batch.target_rows[short.targets].equal(expected.target_rows)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, max_length=st.integers(1, 8))
def test_the_last_target_of_a_row_is_apart_from_the_others(rows: Rows, max_length: int):
    batch = sequences_of(ids_of(rows), max_length)
    others, last = split_last_targets(batch)
    of_row = [batch.targets[batch.target_rows == row].tolist() for row in range(len(rows))]
    assert others.targets.tolist() == [target for targets in of_row for target in targets[:-1]]
    assert last.targets.tolist() == [targets[-1] for targets in of_row if targets]
    assert last.target_rows.tolist() == [row for row, targets in enumerate(of_row) if targets]
    assert batch.items[batch.input_places][last.target_inputs].equal(batch.items[last.target_places - 1])
