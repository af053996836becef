"""Rows that leave out each user's last two items: the last is for the test, the one before it for validation."""

import numpy as np
import numpy.typing as npt

from raysparse.data.dataset import TEST, TRAIN, VALIDATION
from raysparse.data.sequences.histories import Histories, Places, Rows
from raysparse.errors import DataError

SHORTEST = 3
"""Events of a user at least: something before both items that are left out."""


def leave_one_out(histories: Histories) -> dict[str, Rows]:
    """Return the rows of each part of the data set, users in their order; every user needs `SHORTEST` events."""
    starts, ends = histories.offsets[:-1], histories.offsets[1:]
    return {
        TRAIN: train_rows(starts, ends - 2),
        VALIDATION: Rows(starts, ends - 2, ends - 1),
        TEST: Rows(starts, ends - 1, ends),
    }


def train_rows(starts: Places, ends: Places) -> Rows:
    """Return a row per user whose training items (from `starts` to `ends`, `[users]`) are more than one.

    The first item is the history and all others are targets. DataError where no user has two.
    """
    rows = Rows(starts, starts + 1, ends)
    rows = rows.take(rows.target_starts < rows.ends)
    if not len(rows):
        raise DataError(
            "no user has two items to train on before those that are left out for validation and test; give an `input` "
            "of longer sequences, or lower `min_user_events`, `min_item_events` or `min_rating`"
        )
    return rows


def in_training(histories: Histories, train_ends: Places) -> npt.NDArray[np.bool_]:
    """Tell which events are trained on, `[events]`, given where each user's training items end, `[users]`."""
    change = np.zeros(len(histories.items) + 1, np.int8)
    change[histories.offsets[:-1]] += 1
    change[train_ends] -= 1
    return np.cumsum(change[:-1], dtype=np.int8) > 0


def train_counts(histories: Histories, train_ends: Places) -> Places:
    """Count each item in the training items of all users, `[items]` from row 1 on."""
    return np.bincount(histories.items[in_training(histories, train_ends)], minlength=histories.num_items + 1)[1:]
